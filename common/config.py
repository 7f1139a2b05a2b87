"""The configuration: one frozen dataclass tree, every field a command-line flag by its dotted name.

The string under a field is its `--help` line. Values come from a preset (`common.presets`), then a file, then flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EnvironmentConfig:
    """How environments are built and stepped."""

    action_repeat: int = 2
    """Control steps per action; rewards are summed over them."""
    time_limit: int = 1000
    """Control steps after which an episode ends without being a termination."""
    rendering: Literal["full", "fast"] = "full"
    """full: dm_control's own picture. fast: no shadows, reflections or multisampling; in software several times the
    speed."""
    gl: Literal["auto", "egl", "osmesa"] = "auto"
    """OpenGL backend; auto tries EGL, then OSMesa, each in a process of its own under a time limit."""
    hang_seconds: float = 60.0
    """An actor whose step or render takes longer than this is killed and restarted."""


@dataclass(frozen=True)
class ActingConfig:
    """How actions are chosen from the policy."""

    noise: float = 0.3
    """Standard deviation of the Gaussian noise added to training actions before clipping to ±1."""
    train_action: Literal["sample", "mode"] = "sample"
    """What the noise is added to: a policy sample (released Dreamer) or the mode (Dreamer, arXiv v1)."""
    mode_samples: int = 100
    """Evaluation acts with the densest of this many policy samples."""
    threads: int = 1
    """CPU threads of each collector and evaluator process. More help only where cores are idle; with the inline runtime
    acting shares the learner's process, and its threads."""


Sampling = Literal["uniform_step", "uniform_episode", "recent", "prioritized"]
Sync = Literal["always", "interval", "never"]


@dataclass(frozen=True)
class ReplayConfig:
    """The replay service."""

    capacity: int = 2_000_000
    """Environment steps kept; the oldest chunks leave first."""
    chunk_rows: int = 50
    """Rows per chunk that actors send."""
    shards: int = 1
    """Replay processes; an actor writes to one, a batch draws from all."""
    sampling: Sampling = "uniform_step"
    """uniform_step: every window alike. uniform_episode: a finished episode first, then a window of it. recent: a part
    of the windows from the newest ones. prioritized: in proportion to a power of the world model's loss."""
    recent_fraction: float = 0.5
    """recent: probability that a window is drawn from the newest ones alone, and not from all."""
    recent_windows: int = 50_000
    """recent: how many windows are the newest ones; the shards hold equal parts of them."""
    priority_exponent: float = 0.6
    """prioritized: the power of the loss to which windows are drawn in proportion; 0 draws every window alike."""
    compress: Literal["auto", "always", "never"] = "auto"
    """LZ4-compress images before they leave an actor (2-6 times smaller); auto: only for redis."""
    reading: Literal["auto", "service"] = "auto"
    """auto: a learner on the replay's host reads lmdb files itself. service: batches always come over Ray."""
    prefill: int = 5000
    """Environment steps of uniform random actions before the first update."""
    pretrain: int = 100
    """Updates owed as soon as the prefill is there."""
    sync: Sync = "always"
    """lmdb: when inserts are flushed to the disk. A power loss costs nothing (always: before each acknowledgement), the
    last seconds (interval), or perhaps the whole replay (never); a killed process loses nothing in any case."""
    sync_seconds: float = 1.0
    """lmdb with sync interval: seconds between two flushes, and so about the most that a power loss costs."""


@dataclass(frozen=True)
class TrainingConfig:
    """Batches, publishing and checkpoints."""

    batch_size: int = 50
    """Sequences per batch (B)."""
    batch_length: int = 50
    """Rows per sequence (L)."""
    publish_every: int = 100
    """Updates between two broadcasts of the weights."""
    checkpoint_every: int = 2000
    """Updates between two checkpoints."""
    log_every: int = 100
    """Updates between two lines of metrics.jsonl."""
    image_every: int = 2000
    """Updates between two reconstruction strips in TensorBoard."""
    gradient_clip: float = 100.0
    """Global gradient norm of each optimiser is clipped to this."""
    adam_epsilon: float = 1e-7
    """Adam's epsilon."""
    learner_threads: int = 0
    """CPU threads of each learner; 0 leaves one core to the actors, and shares the others among the learners."""


@dataclass(frozen=True)
class WorldModelConfig:
    """The recurrent state-space world model (Dreamer section 4, PlaNet)."""

    deter: int = 200
    """Size of the deterministic (GRU) state."""
    stoch: int = 30
    """Size of the stochastic state (S)."""
    hidden: int = 200
    """Units of the RSSM's dense layers."""
    depth: int = 32
    """Channels of the encoder's first convolution; the others are multiples of it."""
    min_std: float = 0.1
    """Added to the softplus standard deviation of prior and posterior."""
    reward_layers: int = 2
    """Hidden layers of the reward head."""
    reward_units: int = 400
    """Units per hidden layer of the reward head."""
    discount_head: bool = False
    """Predict episode ends; off for DMControl, whose tasks hardly ever terminate."""
    discount_layers: int = 3
    """Hidden layers of the discount head."""
    discount_units: int = 400
    """Units per hidden layer of the discount head."""
    discount_scale: float = 10.0
    """Weight of the discount head's log-likelihood."""
    free_nats: float = 3.0
    """KL below this is free."""
    kl_scale: float = 1.0
    """Weight of the KL (beta)."""
    kl_clip: Literal["mean", "element"] = "mean"
    """Whether free nats apply to the mean KL or to each element (the older release)."""
    contrastive_layers: int = 3
    """Hidden layers of the contrastive objective's state model q(z|o)."""
    contrastive_units: int = 400
    """Units per hidden layer of the state model."""
    contrastive_min_std: float = 0.01
    """Added to the state model's standard deviation."""
    nce_sum: Literal["observations", "states"] = "observations"
    """What the contrastive normaliser sums over: the paper's eq. 12 (observations), or the released code (states)."""
    learning_rate: float = 6e-4
    """Adam's step size for the world model."""


@dataclass(frozen=True)
class DreamerConfig:
    """Behaviour learning in imagination (Dreamer section 3)."""

    actor_layers: int = 4
    """Hidden layers of the actor."""
    value_layers: int = 3
    """Hidden layers of the value head."""
    units: int = 400
    """Units per hidden layer of actor and value head."""
    gamma: float = 0.99
    """Discount per imagined step (where no discount head predicts it)."""
    return_lambda: float = 0.95
    """Mixing of the lambda-return."""
    mean_scale: float = 5.0
    """The actor's mean is scale * tanh(m / scale); 0 leaves it unconstrained."""
    init_std: float = 5.0
    """The actor's standard deviation starts near this; 0 means plain softplus(s)."""
    min_std: float = 1e-4
    """Added to the actor's standard deviation."""
    discount_weights: bool = True
    """Weight each imagined step by the discounts before it (D_tau); off in the arXiv text's eq. 7-8."""
    value_target_every: int = 0
    """Updates between copies of the value head into the target that enters the returns; 0: no target."""
    actor_learning_rate: float = 8e-5
    """Adam's step size for the actor."""
    value_learning_rate: float = 8e-5
    """Adam's step size for the value head."""
    doubled_batch: bool = False
    """Twice as many sequences per batch: what IDM's derived memories are compared with (IDM's ablations)."""


Entropy = Literal["tanh_normal", "gaussian"]


@dataclass(frozen=True)
class NoValueConfig:
    """Dreamer without a value head (Dreamer, eq. 4, figures 4 and 7)."""

    discounted: bool = False
    """Discount the imagined rewards (the released code) instead of summing them as they are (eq. 4)."""


@dataclass(frozen=True)
class BirdConfig:
    """Bridging imagination and reality (BIRD, eq. 5-10)."""

    confidence_on_value: bool = True
    """Weight the value head's loss by confidence too (released code), not the actor's alone (the paper's text)."""
    entropy_weight: float = 1e-8
    """Weight of the policy's entropy at real states (w_MI)."""
    entropy: Entropy = "tanh_normal"
    """Entropy of the squashed policy, estimated from samples, or of the Gaussian before the tanh (eq. 10)."""
    entropy_samples: int = 100
    """Samples of the tanh_normal estimate."""


@dataclass(frozen=True)
class SoftBirdConfig:
    """Entropy as a part of the imagined reward (Soft-BIRD, BIRD eq. 11-12)."""

    alpha: float = 0.2
    """Weight of the entropy beside the reward."""
    entropy: Entropy = "tanh_normal"
    """As bird.entropy; gaussian has no upper bound, so the policy may widen for ever."""
    entropy_samples: int = 100
    """Samples of the tanh_normal estimate."""


@dataclass(frozen=True)
class IdmConfig:
    """Imagination with derived memory (IDM, eq. 1-8)."""

    ablation: Literal["none", "without_evaluator", "without_derived_memory", "without_both"] = "none"
    """What to leave out: reliability weights; derived starts; derived starts and decoding constraint."""
    copies: int = 1
    """Derived starts per start of imagination (K)."""
    rho: float = 1.0
    """Weight of the decoding constraint."""
    delta: float = 3.0
    """Nats by which the picture of a disturbed state may differ for free."""
    sigma_h: float = 0.1
    """Standard deviation of the noise on the deterministic state."""
    sigma_n: float = 0.1
    """Standard deviation of the noise on the stochastic state."""
    overshoot: int = 10
    """Steps of open-loop prediction that the trajectory evaluator learns to tell from reality (T)."""
    evaluator_layers: int = 2
    """Hidden layers of the trajectory evaluator."""
    evaluator_units: int = 400
    """Units per hidden layer of the trajectory evaluator."""
    evaluator_learning_rate: float = 8e-5
    """Adam's step size for the trajectory evaluator."""


@dataclass(frozen=True)
class PlanetConfig:
    """Planning at every step (PlaNet)."""

    horizon: int = 12
    """Steps that are planned ahead."""
    candidates: int = 1000
    """Action sequences per iteration."""
    iterations: int = 10
    """Refits of the candidates' distribution."""
    top: int = 100
    """Best candidates that it is fitted to."""


ReplayOnDevice = Literal["auto", "on", "off"]
Precision = Literal["float32", "tf32", "bf16"]
Compile = Literal["none", "default", "max"]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    task: str = "walker_walk"
    """DMControl task (domain_task), or package.module:factory of any dm_env environment with 64x64 images."""
    algorithm: str = "dreamer"
    """Behaviour that is learnt on the world model: see above."""
    objective: str = "reconstruction"
    """What teaches the world model to see: reconstruction, contrastive or reward_only (Dreamer section 4)."""
    horizon: int = 15
    """Imagined steps per start (H)."""
    preset: str = "paper"
    """paper (GPU), dreamer_arxiv, small (two CPU cores), smoke (seconds)."""
    seed: int = 0
    """Seed of everything random."""
    env_steps: int = 1_000_000
    """Environment steps to train for (action repeats count)."""
    runtime: Literal["ray", "inline"] = "ray"
    """ray: every role a process. inline: one process, deterministic for a seed."""
    ray_address: str = ""
    """Ray cluster to join ('auto' or host:port); empty starts a local one."""
    offline: str = ""
    """Dataset or run folder to train from: it is inserted at the start and nothing is collected. env_steps, prefill and
    train_ratio say how many updates there are, as if those steps had been collected."""
    ray_placement: Literal["anywhere", "labels"] = "anywhere"
    """labels: roles only go to nodes that offer Ray's resource dreamfleet_actor, _learner or _replay."""
    actors: int = 4
    """Collector processes."""
    actors_min: int = 0
    """With actors_max: collectors come and go, never fewer than this; 0: as actors."""
    actors_max: int = 0
    """Most collectors. More start while the learner waits for environment steps and the cluster has room, and those
    that have nothing to do end; a run begins with as many as --actors says, within these bounds. 0: as actors."""
    envs_per_actor: int = 4
    """Environments per collector, stepped together with one batched policy call."""
    learners: int = 1
    """Learner processes that share each batch, each on a GPU (or CPU) of its own: the same updates, faster."""
    train_ratio: float = 0.1
    """Updates per environment step."""
    replay_store: str = "lmdb"
    """memory, lmdb (embedded, on the run folder's disk), or redis (servers of their own, for clusters)."""
    redis_url: str = ""
    """redis: servers, separated by commas, which the shards take in turn: redis[s]://[user@]host:port."""
    redis_prefix: str = ""
    """redis: name of this run's keys; empty makes one up and keeps it in config.yaml."""
    redis_timeout: float = 300.0
    """Seconds to wait for a Redis server that is away or full, or for room on a full disk, before the run ends with a
    checkpoint (on a full disk, with the last one that it took)."""
    device: str = "auto"
    """Where the learner computes: auto, cpu, cuda or cuda:N."""
    precision: Precision = "float32"
    """What the learner's products and convolutions are computed in, all else stays float32. tf32: a GPU's shorter
    float32, on a CPU the same as float32. bf16: fastest on a GPU; on a CPU slower than float32 without AMX."""
    compile: Compile = "none"
    """How the learner's update is made faster. default: on a GPU, captured as a CUDA graph and replayed (one learner
    only); on a CPU, networks compiled by torch.compile: minutes of compiling for hardly any gain. max: both."""
    replay_on_device: ReplayOnDevice = "auto"
    """Whether the replay's rows stay on the learner's device once they were drawn, and batches are gathered there: the
    same batches. auto: on a GPU of which they fill at most half of what is free. on: always, also on a CPU."""
    eval_every: int = 10_000
    """Environment steps between evaluations; 0 evaluates only before and after. One that takes longer delays the next
    ones; none is left out."""
    eval_episodes: int = 1
    """Episodes per evaluation and angle."""
    final_eval_episodes: int = 10
    """Episodes of the evaluations before and after training."""
    eval_rotation: tuple[float, ...] = (0.0,)
    """Angles in degrees; images are rotated by U(-angle, angle) at evaluation only."""
    keep_at: tuple[int, ...] = ()
    """Checkpoints at these update counts are never deleted."""
    metrics_port: int = 9464
    """Where Prometheus can read the run's numbers (/metrics); the next free port if it is taken; 0: nowhere."""
    metrics_host: str = "127.0.0.1"
    """Address that the port is opened on; anybody who reaches it may read."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    acting: ActingConfig = field(default_factory=ActingConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    dreamer: DreamerConfig = field(default_factory=DreamerConfig)
    no_value: NoValueConfig = field(default_factory=NoValueConfig)
    bird: BirdConfig = field(default_factory=BirdConfig)
    soft_bird: SoftBirdConfig = field(default_factory=SoftBirdConfig)
    idm: IdmConfig = field(default_factory=IdmConfig)
    planet: PlanetConfig = field(default_factory=PlanetConfig)

    @property
    def least_actors(self) -> int:
        """Collectors that a run always wants."""
        return self.actors_min or self.actors

    @property
    def most_actors(self) -> int:
        """Collectors that a run never has more of."""
        return self.actors_max or self.actors

    @property
    def first_actors(self) -> int:
        """Collectors that a run begins with."""
        return min(max(self.actors, self.least_actors), self.most_actors)

    @property
    def environments(self) -> int:
        """Environments of the whole run: the most that it may have."""
        return self.most_actors * self.envs_per_actor

    @property
    def sequences(self) -> int:
        """Sequences of one batch (B)."""
        return self.training.batch_size * (2 if self.dreamer.doubled_batch else 1)

    @property
    def packs_images(self) -> bool:
        """Whether chunks are compressed."""
        return self.replay.compress == "always" or (self.replay.compress == "auto" and self.replay_store == "redis")
