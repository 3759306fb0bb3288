"""Fast paths for a GPU: packed passes, a fused head, and decoding by CUDA graphs.

Each path has a plain one beside it, is checked against that at its first use on a device, and
gives way to it with a message where the two differ. The same code runs on a CPU in the tests, with
compilation and graphs left out.
"""
