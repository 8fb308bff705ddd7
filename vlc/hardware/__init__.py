"""What processors, devices and processes are good at: fast products, casts, memory, communication.

This room imports `common` alone.
"""
