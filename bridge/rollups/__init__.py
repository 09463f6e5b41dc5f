"""Rollups: what waits in a platform's tables is taken up, and each bucket that it touches is computed anew and written.

A bucket is always computed from all its rows, so that doing it twice, late, or by several workers gives the same figures.
"""
