"""Prints what 256 worlds gave in 230 steps: for each step a line of rewards (hexadecimal float64), observations and ends."""
import sys

import numpy as np

import omega_sim

envs = omega_sim.VectorEnv(sys.argv[1], "cage2", worlds=256, seed=77, red="meander", green=True, version="later")
seen, info = envs.reset()
assert seen.shape == (256, 52) and not seen.any() and info["action_mask"].shape == (256, 145), (seen.shape, info)
world = np.arange(256)
for t in range(230):
    seen, rewards, terminated, truncated, info = envs.step((7 * world + 13 * t + world * t) % 145)
    assert rewards.dtype == np.float64 and not terminated.any()
    packed = np.packbits(seen, axis=1, bitorder="little").tobytes()
    print(rewards.tobytes().hex(), packed.hex(), truncated.astype(np.uint8).tobytes().hex(), np.packbits(info["action_mask"], axis=1, bitorder="little").tobytes().hex())
envs.close()
