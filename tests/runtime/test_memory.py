"""Does memory that was freed really go back to the system?"""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, pathlib
from runtime.memory import give_back, share_one_arena
share_one_arena()
def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(64 * 1024) for _ in range(400)]
for block in blocks:
    ctypes.memset(block, 1, 64 * 1024)
for block in blocks[:-1]:  # the last one stays, so that the heap cannot shrink from its top by itself
    libc.free(block)
held = resident()
give_back()
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is a Linux matter")
def test_freed_blocks_below_a_living_one_go_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000  # kB, of the 25,600 freed
