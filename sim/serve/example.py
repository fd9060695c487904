#!/usr/bin/env python3
"""A whole trainer in little: a linear softmax policy for the defender of CAGE-2, by policy gradients (REINFORCE with the
mean of the batch as baseline). Start `omega sim serve`, then: python3 example.py 127.0.0.1:8737 [ITERATIONS]"""
import sys

import numpy as np

import omega_sim

WORLDS, STEPS, RATE, DISCOUNT = 256, 30, 1.0, 0.9


def main(address, iterations=60):
    envs = omega_sim.VectorEnv(address, "cage2", worlds=WORLDS, steps=STEPS, seed=1, red="b_line")
    draw = np.random.default_rng(1)
    inputs = envs.single_observation_space.shape[0] + 1
    weights = np.zeros((inputs, envs.single_action_space.n))
    for iteration in range(iterations):
        observations, info = envs.reset()
        seen, gradients, rewards = [], [], []
        for _ in range(STEPS):
            x = np.hstack([observations, np.ones((WORLDS, 1))])
            scores = np.where(info["action_mask"], x @ weights, -np.inf)
            chances = np.exp(scores - scores.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            actions = (chances.cumsum(axis=1) > draw.random((WORLDS, 1)) * (1 - 1e-9)).argmax(axis=1)
            observations, reward, _, _, info = envs.step(actions)
            chances[np.arange(WORLDS), actions] -= 1
            seen.append(x)
            gradients.append(-chances)
            rewards.append(reward)
        ahead, returns = np.zeros(WORLDS), []
        for reward in reversed(rewards):
            ahead = reward + DISCOUNT * ahead
            returns.insert(0, ahead)
        advantage = np.array(returns)
        advantage -= advantage.mean(axis=1, keepdims=True)
        advantage /= advantage.std() + 1e-9
        for x, gradient, a in zip(seen, gradients, advantage):
            weights += RATE / (WORLDS * STEPS) * x.T @ (gradient * a[:, None])
        print(f"iteration {iteration}: mean reward of an episode {np.sum(rewards, axis=0).mean():.2f}", flush=True)
    envs.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
