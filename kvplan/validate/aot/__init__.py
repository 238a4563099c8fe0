"""What the compiler makes of the kernels, without a GPU: real machine code, read and judged.

`python -m kvplan.validate.aot` compiles every case for every target through the ordinary launch path, with a stand-in
for the driver, and prints a table of registers, shared memory and blocks per SM; exit 1 if a kernel fails a gate.
No figure of this package comes from a GPU. It cannot share a process with Triton's interpreter.
"""
