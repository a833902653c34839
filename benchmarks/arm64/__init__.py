"""Does the device side compute on 64-bit Arm what it computes here? The arm64 package, run by qemu."""
