"""Holds the client to the semantics of Gymnasium and PettingZoo, and to clear errors. Prints "ok" at its end."""
import math
import sys

import numpy as np

import omega_sim


def refused(kind, part, call):
    try:
        call()
    except kind as e:
        assert part in str(e), f"{e!r} does not say {part!r}"
    else:
        raise AssertionError(f"nothing was refused where {part!r} was due")


address, scenario = sys.argv[1], sys.argv[2]

# Gymnasium's Env.
env = omega_sim.Env(address, "cage2", red="b_line", steps=5)
assert env.action_space.n == 145 and env.action_space.names[132:] and env.observation_space.shape == (52,)
refused(omega_sim.Error, "failed_precondition", lambda: [env.step(0) for _ in range(7)])
first, info = env.reset(seed=3)
assert env.observation_space.contains(first) and info["action_mask"].dtype == np.uint8 and info["action_mask"][0] == 1
rewards = []
for t in range(5):
    seen, reward, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]) if t == 4 else 0)
    assert type(reward) is float and terminated is False and truncated is (t == 4)
    rewards.append(reward)
env.reset(seed=3)
assert rewards[:4] == [env.step(0)[1] for _ in range(4)], "the same seed gives other rewards"
refused(ValueError, "want whole numbers", lambda: env.step(0.5))
refused(ValueError, "want whole numbers", lambda: env.step(math.nan))
refused(ValueError, "want 0 to 144", lambda: env.step(-1))
refused(ValueError, "want 0 to 144", lambda: env.step(145))
env.close()
env.close()

# Gymnasium's VectorEnv: the step after an episode's end begins the next one.
envs = omega_sim.VectorEnv(address, "cage2", worlds=3, steps=2, seed=5, red="sleep")
envs.reset()
assert not envs.step(np.zeros(3, int))[3].any()
assert envs.step(np.zeros(3, int))[3].all()
seen, rewards, terminated, truncated, _ = envs.step(np.full(3, 144))
assert not seen.any() and not rewards.any() and not truncated.any(), "the step that resets plays nothing"
assert (envs.step(np.full(3, 144))[1] == -1).all(), "a Restore costs 1"
envs.reset(options={"reset_mask": np.array([True, False, False])})
assert list(envs.step(np.zeros(3, int))[3]) == [False, True, True]
seen, _, _, _, info = envs.step(envs.action_space.sample())
drawn = envs.action_space.sample(np.eye(3, 145, 7))
assert list(drawn) == [7, 8, 9] and envs.action_space.contains(drawn) and not envs.action_space.contains(drawn - 8), drawn
assert envs.observation_space.contains(seen) and envs.unwrapped is envs
refused(ValueError, "want (3,)", lambda: envs.step(np.zeros((3, 1), int)))
refused(ValueError, "want (3,)", lambda: envs.step([0, 0]))
refused(ValueError, "from 0 to 2**64-1", lambda: envs.reset(seed=-1))
envs.reset(seed=2**64 - 1)
envs.close()

# PettingZoo's ParallelEnv.
env = omega_sim.ParallelEnv(address, "cage2", steps=40, end_on_impact=True)
seen, infos = env.reset(seed=1)
assert env.agents == env.possible_agents == ["blue", "red", "green"] and set(seen) == set(infos) == set(env.agents)
assert [env.action_space(a).n for a in env.agents] == [145, 44, 14]
assert env.num_agents == env.max_num_agents == 3
steps, total = 0, {a: 0.0 for a in env.agents}
while env.agents:
    actions = {a: env.action_space(a).sample(infos[a]["action_mask"]) for a in env.agents}
    actions["blue"] = 0
    seen, rewards, terminations, truncations, infos = env.step(actions)
    assert all(env.observation_space(a).contains(seen[a]) for a in env.possible_agents)
    steps += 1
    for a in total:
        total[a] += rewards[a]
assert (terminations["red"] or truncations["red"]) and not (terminations["red"] and truncations["red"]) and steps <= 40
assert abs(total["blue"] + total["red"]) < 1e-9 and total["green"] == 0, total
refused(omega_sim.Error, "the episode is over", lambda: env.step({}))
env.close()

# Training an attacker: red alone, against a scripted defender.
envs = omega_sim.VectorEnv(address, "cage2", worlds=4, agent="red", blue="react", steps=30)
seen, info = envs.reset(seed=1)
assert seen.shape == (4, 213) and (info["action_mask"].sum(axis=1) >= 4).all()
envs.close()

# A described network.
env = omega_sim.Env(address, "network", scenario=scenario, step_seconds=3600.0)
seen, info = env.reset(seed=2)
assert env.action_space.names[0] == "wait" and seen.dtype == np.float32 and info["action_mask"].all()
lost = 0.0
while True:
    seen, reward, terminated, truncated, info = env.step(0)
    lost -= reward
    assert env.observation_space.contains(seen) and not terminated
    if truncated:
        break
assert lost > 0
env.reset(seed=2)
_, _, _, _, info = env.step(env.action_space.n - 1)
assert info["action_mask"][-1] == 0, "what is refused cannot be refused again"
env.close()

# What the server refuses.
for part, options in {
    "invalid_argument: invalid request: 0 worlds": {"worlds": 0},
    "invalid_argument: invalid request: 1000000000 worlds: from 1 to 65536": {"worlds": 10**9},
    "uint32": {"worlds": -1},
    "want cage2 or network": {"environment": "chess"},
    "each once": {"agents": ["blue", "blue"]},
    "want sleep, b_line": {"red": "mallory"},
    "at most 250": {"steps": 100000},
}.items():
    refused(omega_sim.Error, part, lambda: omega_sim.Batch(address, **{"environment": "cage2", **options}))
refused(TypeError, "cage2 has no option 'colour'; it has version, blue", lambda: omega_sim.Env(address, "cage2", colour="blue"))
connection = omega_sim.Connection(address)
refused(omega_sim.Error, "not_found: no such session", lambda: connection.call("Step", session="0" * 32, actions=b""))
refused(ValueError, "not JSON compliant", lambda: connection.call("Step", session="", actions=[math.nan]))
refused(omega_sim.Error, "HTTP 404", lambda: connection.call("Explode"))
connection.close()
refused(omega_sim.Error, "unavailable: no answer from unix:/nonexistent/socket", lambda: omega_sim.Env("unix:/nonexistent/socket"))
print("ok")
