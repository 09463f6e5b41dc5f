"""Pages that a process asks for again and again, and those that it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc alone can be told what to keep")
# Of a block that is asked for ten times.
PAGES = 512
# A process of its own: what others have freed before would serve for blocks of ours.
_PROGRAM = f"""
import json, resource
import numpy as np
from inference_server.allocator import Reuse, return_what_is_freed

def faults():
    np.ones({PAGES} * resource.getpagesize(), np.uint8)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        np.ones({PAGES} * resource.getpagesize(), np.uint8)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

return_what_is_freed()
memory = Reuse()
told = [faults()]
with memory.reused():
    with memory.reused():
        told.append(faults())
    told.append(faults())
told.append(faults())
print(json.dumps(told))
"""


def test_large_blocks_are_kept_for_the_next_ones_as_long_as_anybody_wants_it() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    before, wanted_twice, wanted_once, after = json.loads(done.stdout)

    assert before >= 10 * PAGES
    assert max(wanted_twice, wanted_once) < PAGES
    assert after >= 10 * PAGES
