"""What processors, devices and processes are good at: fast products, casts, memory, communication.

Imports `common` alone.
"""
