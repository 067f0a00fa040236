"""Compiled kernels of xbarsim: NumPy arrays in, NumPy arrays out.

They know nothing of chips, networks or files, trust their input, and never allocate in hot loops.
"""
