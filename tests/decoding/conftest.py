"""Lets the tests of this folder import the problems they share.

Where the laws of prefix rewards and guided decoding are tested:

- ARM over the whole vocabulary is ARM at gathered indices: test_arm_head (the head), test_guidance_real_heads (the scorer of
  a step), test_guidance_processors (the decoder).
- Rank of the reward matrix at most d, d + 1 with a bias, r + 1 with factors: test_arm_head, test_prefix_synthetic.
- Delta zero gives the baseline for every token; a regulariser without bound does too: test_arm_head.
- Distillation is zero exactly at equality: test_prefix_losses, test_guidance_real_heads (at a fitted teacher's rewards).
- A linear RAD on means of static vectors has rank 2 at most: test_rad_head.
- Position t and t - 1: test_arm_head (one-token texts), test_guidance_real_heads (pairs of tokens; and what a step adds is
  what the head says of the text that would be written).
- Beta 0 is unguided decoding to the bit, with a filter and without: test_guidance_processors, test_guided_generation.
- Sequences are those of a slow, obvious decoder: test_guidance_processors, test_guidance_real_heads, test_guidance_bridge.
- Pieces of a redistributed reward sum to it: test_redistribution.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
