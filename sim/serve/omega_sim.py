"""Play in worlds that `omega sim serve` simulates. Needs Python 3.9 or newer and numpy (Debian: python3-numpy), nothing else.

    import omega_sim
    envs = omega_sim.VectorEnv("unix:/tmp/sim.sock", "cage2", worlds=256, seed=1, red="b_line")
    observations, info = envs.reset()
    observations, rewards, terminated, truncated, info = envs.step(actions)

Env and VectorEnv behave as Gymnasium's (1.x) of the same names, ParallelEnv as PettingZoo's: the same methods, the same
order of results, spaces with n, shape, dtype, contains and sample. info["action_mask"] says which actions can have an
effect; others may be taken and come to nothing.

Environments and their keyword arguments:
  cage2    version="leaderboard"|"later", blue="rules"|..., red="b_line"|..., green=False, end_on_impact=False, steps=100
           agents: blue (the default), red, green; whom you do not play follows its script
  network  scenario="office.yaml" (a path, or the text as bytes), step_seconds=600.0, steps=0
           agents: defender (the default), attacker; without a defender the scenario's own response defends

World i's episode e has a random stream of its own that follows from seed, i and e: the same seed and actions give the same
rewards, bit for bit, on any machine.
"""
import base64
import http.client
import json
import socket

import numpy as np


class Error(Exception):
    """A call was refused or came to nothing. code is Connect's: invalid_argument, not_found, resource_exhausted, unavailable, ..."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Connection:
    """One persistent connection to a server at "unix:PATH" or "HOST:PORT"."""

    def __init__(self, address, timeout=300.0):
        self._address = address
        if address.startswith("unix:"):
            self._http = _UnixConnection(address[5:], timeout)
        else:
            self._http = http.client.HTTPConnection(address, timeout=timeout)

    def call(self, method, **fields):
        """Call a method with JSON and give its answer as a dict; bytes go and come as base64."""
        body = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items() if v is not None}
        return json.loads(self.post(method, "application/json", json.dumps(body, allow_nan=False).encode()))

    def post(self, method, kind, body):
        """Post one request body and give the answer's. A connection that broke is opened anew by the next call."""
        try:
            self._http.request("POST", "/omega.sim.v1.Environments/" + method, body, {"Content-Type": kind})
            answer = self._http.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as e:
            self._http.close()
            raise Error("unavailable", f"no answer from {self._address}: {e or type(e).__name__}; is `omega sim serve` running there?") from e
        if answer.status != 200:
            try:
                told = json.loads(data)
                raise Error(told.get("code", "unknown"), told.get("message", ""))
            except ValueError:
                raise Error("unknown", f"HTTP {answer.status}: {data[:200]!r}") from None
        return data

    def close(self):
        self._http.close()


class Discrete:
    """The whole numbers from 0 to n-1. names[i] is what action i is called."""

    def __init__(self, n, names=()):
        self.n, self.names = n, list(names)
        self.shape, self.dtype, self.start = (), np.dtype(np.int64), 0
        self._random = np.random.default_rng()

    def seed(self, seed=None):
        self._random = np.random.default_rng(seed)

    def contains(self, x):
        return isinstance(x, (int, np.integer)) and not isinstance(x, bool) and 0 <= x < self.n

    def sample(self, mask=None):
        if mask is None:
            return int(self._random.integers(self.n))
        return int(self._random.choice(np.flatnonzero(mask)))

    def __repr__(self):
        return f"Discrete({self.n})"


class MultiDiscrete:
    """One number of the same Discrete for each world."""

    def __init__(self, n, worlds):
        self.nvec, self.shape, self.dtype = np.full(worlds, n), (worlds,), np.dtype(np.int64)
        self._random = np.random.default_rng()

    def seed(self, seed=None):
        self._random = np.random.default_rng(seed)

    def contains(self, x):
        return isinstance(x, np.ndarray) and x.shape == self.shape and x.dtype.kind in "iu" and bool(np.all((x >= 0) & (x < self.nvec)))

    def sample(self, mask=None):
        """A draw for each world; mask: a row of 0 and 1 for each, such as info["action_mask"]."""
        if mask is None:
            return self._random.integers(self.nvec)
        return (self._random.random(np.shape(mask)) * mask).argmax(axis=1)

    def __repr__(self):
        return f"MultiDiscrete({self.nvec})"


class Box:
    """Vectors of numbers from low to high."""

    def __init__(self, low, high, shape, dtype):
        self.low, self.high, self.shape, self.dtype = low, high, shape, np.dtype(dtype)

    def contains(self, x):
        return isinstance(x, np.ndarray) and x.shape == self.shape and bool(np.all((x >= self.low) & (x <= self.high)))

    def __repr__(self):
        return f"Box({self.low}, {self.high}, {self.shape}, {self.dtype})"


_OPTIONS = {"cage2": ("version", "blue", "red", "green", "end_on_impact"), "network": ("scenario", "step_seconds")}


def _bits(raw, worlds, n):
    """Packed bits, a row of whole bytes a world, as an array of 0 and 1."""
    return np.unpackbits(np.frombuffer(raw, np.uint8).reshape(worlds, -1), axis=1, count=n, bitorder="little")


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _field(number, value):
    """A protobuf field of bytes (https://protobuf.dev/programming-guides/encoding)."""
    head, n = [number << 3 | 2], len(value)
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    return bytes(head + [n]) + value


def _fields(data):
    """The fields of bytes of a protobuf message, by number."""
    found, at = {}, 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 != 2:
            raise Error("unknown", "the server answered in a form that this client does not know")
        n, at = _varint(data, at)
        found[key >> 3] = data[at:at + n]
        at += n
    return found


class Batch:
    """Many worlds, stepped together, with one or more agents. The other classes are views of one."""

    def __init__(self, address, environment, worlds=1, agents=None, seed=0, steps=0, autoreset="next-step", masks=True, **options):
        self._session = None
        for name in options:  # the server takes no notice of fields that it does not know
            if name not in _OPTIONS.get(environment, options):
                raise TypeError(f"{environment} has no option {name!r}; it has {', '.join(_OPTIONS[environment])}")
        scenario = options.get("scenario")
        if scenario is not None:
            if not isinstance(scenario, bytes):
                with open(scenario, "rb") as f:
                    scenario = f.read()
            options["scenario"] = base64.b64encode(scenario).decode()
        self._connection = address if isinstance(address, Connection) else Connection(address)
        self._own = self._connection is not address
        made = self._connection.call("Create", environment=environment, worlds=worlds, seed=str(seed), agents=agents, masks=masks,
                                     autoreset=autoreset, steps=steps, **{environment: options})
        self._session, self.worlds, self.steps = made["session"], made["worlds"], made["steps"]
        self.agents, self.action_spaces, self.observation_spaces = [], {}, {}
        for a in made["agents"]:
            name, seen = a["name"], a["observation"]
            self.agents.append(name)
            self.action_spaces[name] = Discrete(a["action"]["n"], a["actions"])
            kind = np.uint8 if seen["kind"] == "multi_binary" else np.float32
            self.observation_spaces[name] = Box(seen.get("low", 0), seen["high"], (seen["n"],), kind)

    def reset(self, seed=None, which=None):
        """Begin new episodes: from a seed, or the next one of each world; which: a bool a world, which to reset (default all)."""
        chosen = None if which is None else np.asarray(which, dtype=bool).tobytes()
        body = _field(1, self._session.encode()) + (b"" if chosen is None else _field(3, chosen))
        if seed is not None:
            n, raw = int(seed), [2 << 3]
            if not 0 <= n < 1 << 64:
                raise ValueError(f"seed {seed}: from 0 to 2**64-1")
            while n > 127:
                raw.append(n & 127 | 128)
                n >>= 7
            body += bytes(raw + [n])
        return self._read(self._connection.post("Reset", "application/proto", body))

    def step(self, actions):
        """One step: actions maps each agent to an array of one action a world. Gives observations, rewards (by agent),
        terminated, truncated (arrays) and masks (by agent; None without masks)."""
        packed = []
        for name in self.agents:
            a = np.asarray(actions[name])
            if a.shape != (self.worlds,):
                raise ValueError(f"actions of {name} have the shape {a.shape}; want ({self.worlds},)")
            if a.dtype.kind not in "iu":
                raise ValueError(f"actions of {name} are {a.dtype}; want whole numbers")
            n = self.action_spaces[name].n
            if self.worlds and not (0 <= a.min() and a.max() < n):
                raise ValueError(f"actions of {name} from {a.min()} to {a.max()}; want 0 to {n - 1}")
            packed.append(a.astype("<i4").tobytes())
        return self._read(self._connection.post("Step", "application/proto", _field(1, self._session.encode()) + _field(2, b"".join(packed))))

    def _read(self, answer):
        parts = _fields(answer)
        seen, masks, rewards = parts[1], parts.get(5), np.frombuffer(parts[2], "<f8").reshape(len(self.agents), self.worlds)
        observations, allowed, at, mask_at = {}, None if masks is None else {}, 0, 0
        for name in self.agents:
            space = self.observation_spaces[name]
            n = space.shape[0]
            size = self.worlds * (4 * n if space.dtype == np.float32 else (n + 7) // 8)
            part = seen[at:at + size]
            at += size
            observations[name] = np.frombuffer(part, "<f4").reshape(self.worlds, n) if space.dtype == np.float32 else _bits(part, self.worlds, n)
            if masks is not None:
                n = self.action_spaces[name].n
                size = self.worlds * ((n + 7) // 8)
                allowed[name] = _bits(masks[mask_at:mask_at + size], self.worlds, n)
                mask_at += size
        return observations, dict(zip(self.agents, rewards)), np.frombuffer(parts[3], bool), np.frombuffer(parts[4], bool), allowed

    def close(self):
        """End the session. One that is merely left ends by itself after a while."""
        if self._session is not None:
            session, self._session = self._session, None
            try:
                self._connection.call("Close", session=session)
            finally:
                if self._own:
                    self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class VectorEnv:
    """Gymnasium's VectorEnv over one agent. After an episode's end the next step begins another (autoreset NEXT_STEP)."""

    metadata = {"render_modes": [], "autoreset_mode": "NextStep"}

    def __init__(self, address, environment="cage2", worlds=256, agent=None, **options):
        self._batch = Batch(address, environment, worlds, None if agent is None else [agent], **options)
        self._agent = self._batch.agents[0]
        self.num_envs = self._batch.worlds
        self.single_action_space = self._batch.action_spaces[self._agent]
        self.single_observation_space = seen = self._batch.observation_spaces[self._agent]
        self.action_space = MultiDiscrete(self.single_action_space.n, self.num_envs)
        self.observation_space = Box(seen.low, seen.high, (self.num_envs,) + seen.shape, seen.dtype)
        self.render_mode = self.spec = None

    def _info(self, masks):
        return {} if masks is None else {"action_mask": masks[self._agent]}

    def reset(self, *, seed=None, options=None):
        seen, _, _, _, masks = self._batch.reset(seed, (options or {}).get("reset_mask"))
        return seen[self._agent], self._info(masks)

    def step(self, actions):
        seen, rewards, terminated, truncated, masks = self._batch.step({self._agent: actions})
        return seen[self._agent], rewards[self._agent], terminated, truncated, self._info(masks)

    @property
    def unwrapped(self):
        return self

    def close(self):
        self._batch.close()


class Env:
    """Gymnasium's Env: one world, one agent. A step after the episode's end is an error."""

    metadata = {"render_modes": []}

    def __init__(self, address, environment="cage2", agent=None, **options):
        self._batch = Batch(address, environment, 1, None if agent is None else [agent], autoreset="disabled", **options)
        self._agent = self._batch.agents[0]
        self.action_space = self._batch.action_spaces[self._agent]
        self.observation_space = self._batch.observation_spaces[self._agent]
        self.render_mode = self.spec = None

    def _info(self, masks):
        return {} if masks is None else {"action_mask": masks[self._agent][0]}

    def reset(self, *, seed=None, options=None):
        seen, _, _, _, masks = self._batch.reset(seed)
        return seen[self._agent][0], self._info(masks)

    def step(self, action):
        seen, rewards, terminated, truncated, masks = self._batch.step({self._agent: np.asarray([action])})
        return seen[self._agent][0], float(rewards[self._agent][0]), bool(terminated[0]), bool(truncated[0]), self._info(masks)

    @property
    def unwrapped(self):
        return self

    def close(self):
        self._batch.close()


class ParallelEnv:
    """PettingZoo's ParallelEnv: one world in which several agents act at once. agents is empty once the episode is over."""

    metadata = {"render_modes": [], "name": "omega_sim"}

    def __init__(self, address, environment="cage2", agents=("blue", "red", "green"), **options):
        self._batch = Batch(address, environment, 1, list(agents), autoreset="disabled", **options)
        self.possible_agents, self.agents = list(self._batch.agents), []
        self.action_spaces, self.observation_spaces = self._batch.action_spaces, self._batch.observation_spaces
        self.render_mode = None

    @property
    def num_agents(self):
        return len(self.agents)

    @property
    def max_num_agents(self):
        return len(self.possible_agents)

    def action_space(self, agent):
        return self._batch.action_spaces[agent]

    def observation_space(self, agent):
        return self._batch.observation_spaces[agent]

    def _first(self, by_agent):
        return {name: by_agent[name][0] for name in self.possible_agents}

    def _infos(self, masks):
        return {name: {} if masks is None else {"action_mask": masks[name][0]} for name in self.possible_agents}

    def reset(self, seed=None, options=None):
        seen, _, _, _, masks = self._batch.reset(seed)
        self.agents = list(self.possible_agents)
        return self._first(seen), self._infos(masks)

    def step(self, actions):
        if not self.agents:
            raise Error("failed_precondition", "the episode is over: reset it")
        seen, rewards, terminated, truncated, masks = self._batch.step({name: np.asarray([actions[name]]) for name in self.agents})
        ends, cut = bool(terminated[0]), bool(truncated[0])
        if ends or cut:
            self.agents = []
        each = self.possible_agents
        return (self._first(seen), {name: float(rewards[name][0]) for name in each}, {name: ends for name in each},
                {name: cut for name in each}, self._infos(masks))

    @property
    def unwrapped(self):
        return self

    def close(self):
        self._batch.close()
