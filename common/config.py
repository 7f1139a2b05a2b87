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
    """full: dm_control's own picture. fast: no shadows, reflections or multisampling (4-17x faster in software)."""
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


@dataclass(frozen=True)
class ReplayConfig:
    """The replay service."""

    capacity: int = 2_000_000
    """Environment steps kept; the oldest chunks leave first."""
    chunk_rows: int = 50
    """Rows per chunk that actors send."""
    shards: int = 1
    """Replay processes; an actor writes to one, a batch draws from all."""
    sampling: Literal["uniform_step", "uniform_episode"] = "uniform_step"
    """uniform_step: every window alike. uniform_episode: a finished episode first, then a window of it."""
    prefill: int = 5000
    """Environment steps of uniform random actions before the first update."""
    pretrain: int = 100
    """Updates owed as soon as the prefill is there."""
    sync: bool = True
    """lmdb: flush every insert to the disk before acknowledging it, so that it survives a power loss."""


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
    """CPU threads of the learner; 0 leaves one core to the actors."""


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


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    task: str = "walker_walk"
    """DMControl task (domain_task), or package.module:factory of any dm_env environment with 64x64 images."""
    algorithm: str = "dreamer"
    """Behaviour that is learned on the world model."""
    objective: str = "reconstruction"
    """Representation objective of the world model."""
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
    actors: int = 4
    """Collector processes."""
    envs_per_actor: int = 4
    """Environments per collector, stepped together with one batched policy call."""
    train_ratio: float = 0.1
    """Updates per environment step."""
    replay_store: str = "lmdb"
    """memory, or lmdb (embedded, on the run folder's disk)."""
    device: str = "auto"
    """Where the learner computes: auto, cpu, cuda or cuda:N."""
    eval_every: int = 10_000
    """Environment steps between evaluations; 0 evaluates only before and after."""
    eval_episodes: int = 1
    """Episodes per evaluation and angle."""
    final_eval_episodes: int = 10
    """Episodes of the evaluations before and after training."""
    eval_rotation: tuple[float, ...] = (0.0,)
    """Angles in degrees; images are rotated by U(-angle, angle) at evaluation only."""
    keep_at: tuple[int, ...] = ()
    """Checkpoints at these update counts are never deleted."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    acting: ActingConfig = field(default_factory=ActingConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    dreamer: DreamerConfig = field(default_factory=DreamerConfig)

    @property
    def environments(self) -> int:
        """Environments of the whole run."""
        return self.actors * self.envs_per_actor
