"""Does a build send word of itself to nobody?"""

import subprocess
import sys

PROGRAM = """
import sys
if KEEP:
    from toolchain.offline import keep_offline
    keep_offline()
import nncf.telemetry.wrapper as nncf_telemetry
import openvino.tools.ovc.convert_impl as ovc
print(isinstance(nncf_telemetry.telemetry, nncf_telemetry.NNCFTelemetry), ovc.tm.__name__)
"""


def told(*, keep: bool) -> str:
    program = PROGRAM.replace("KEEP", str(keep))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_engines_use_the_stubs_of_their_telemetry() -> None:
    assert told(keep=True) == "False openvino.tools.ovc.telemetry_stub"
    assert told(keep=False) == "True openvino_telemetry", "the control: left alone, both would report"
