"""The schema of a recipe: one pydantic model per section, each key with its unit, default and meaning.

Tokens are time: every key that ends in `_tokens` counts tokens of the whole global batch. A key marked `WHERE` only
decides where a run runs or how it is observed; all other keys are part of its meaning. A key that is added later is
marked `ADDED`.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from headway.localfiles import local_path
from headway.recipe.model_settings import AnyModel
from headway.recipe.optimizer_settings import AdamW, AnyOptimizer
from headway.recipe.section import ADDED, WHERE, Section, Share

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Source(Section):
    """One corpus of documents."""

    path: str
    """A file, a folder (searched recursively), a glob, or `python:stdlib` (the interpreter's own library).
    Text, code, JSONL and parquet, plain or compressed with gzip or Zstandard, recognized by file ending."""
    text_key: str = "text"
    """JSONL field or parquet column with the text of a document."""


class Tokenizer(Section):
    """Byte-level BPE, trained once on the sources and frozen."""

    vocabulary: Annotated[int, Field(ge=257, le=1 << 20)] = 32_768
    """Number of tokens, including the 256 bytes and the end-of-document token."""
    sample_bytes: PositiveInt = 64 << 20
    """Amount of text to train the tokenizer on, spread evenly over the sources [bytes]."""


class Stage(Section):
    """Sequence length and data mixture from a token position on."""

    from_tokens: NonNegativeInt = 0
    """First token position of the stage; a multiple of `train.batch_tokens`."""
    sequence_tokens: PositiveInt | None = None
    """Sequence length that blocks are split into; a divisor of `data.block_tokens`, which is the default."""
    weights: dict[str, PositiveFloat] | None = None
    """Relative weight of each source, by name. Default: the source's number of tokens."""


class Data(Section):
    """Text sources, tokenizer, block length and data mixture."""

    path: Annotated[str | None, Field(json_schema_extra=WHERE)] = None
    """Folder of the built token shards. Default: `data/<recipe name>`."""
    sources: Annotated[dict[Name, Source], Field(min_length=1)] = {"stdlib": Source(path="python:stdlib")}
    """Text sources, by name."""
    tokenizer: Tokenizer = Tokenizer()
    block_tokens: PositiveInt = 2048
    """Length of a packed block, the longest training sequence [tokens]."""
    held_out_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.005
    """Share of documents kept out of training, for evaluation; each is held out whole or not at all."""
    document_bytes: Annotated[int, Field(ge=4)] = 1 << 20
    """Longest document; longer ones are split at line ends [bytes]. A character has up to 4."""
    curriculum: Annotated[list[Stage], Field(min_length=1)] = [Stage()]
    """Stages, in ascending order of `from_tokens`; the first starts at 0."""


class Schedule(Section):
    """The learning rate as a function of tokens consumed."""

    kind: Literal["cosine", "wsd"] = "cosine"
    """`cosine`, or `wsd` (warm-up, constant, linear decay)."""
    warmup_tokens: NonNegativeInt = 0
    warmup_share: Annotated[Share | None, Field(json_schema_extra=ADDED)] = None
    """Length of the warm-up as a share of `train.tokens`, in the place of `warmup_tokens`; scales with it."""
    decay_tokens: PositiveInt | None = None
    """`wsd` only: length of the final decay. Default: a fifth of `train.tokens`."""
    decay_share: Annotated[Share | None, Field(json_schema_extra=ADDED)] = None
    """`wsd` only: length of the final decay as a share of `train.tokens`, in the place of `decay_tokens`."""
    final_ratio: Share = 0.1
    """Final learning rate, as a share of the peak."""

    @model_validator(mode="after")
    def _one_length_each(self) -> Self:
        if self.warmup_tokens and self.warmup_share is not None:
            raise ValueError("warmup_tokens and warmup_share: write one of them")
        if self.decay_tokens and self.decay_share is not None:
            raise ValueError("decay_tokens and decay_share: write one of them")
        return self


class Stability(Section):
    """Actions on a non-finite loss or a loss spike. Each case is a recorded decision."""

    on_nonfinite: Literal["skip", "rollback", "stop"] = "skip"
    on_spike: Literal["ignore", "skip", "rollback", "stop"] = "ignore"
    spike_sigmas: PositiveFloat = 6.0
    """A batch loss this many standard deviations above the mean of the last `spike_window` batches is a spike."""
    spike_window: Annotated[int, Field(ge=4)] = 64
    """Number of batches in the mean and standard deviation."""
    rollback_batches: PositiveInt = 8
    """Number of batches to skip after a rollback, including the bad one."""
    limit: PositiveInt = 16
    """Number of decisions after which the run stops as failed."""


class Train(Section):
    """Token budget, batch size, arithmetic, optimizer and schedule."""

    tokens: PositiveInt
    """Token budget; training ends with the first batch that reaches it."""
    batch_tokens: PositiveInt
    """Global batch [tokens]; the same for every world size."""
    micro_batch_tokens: PositiveInt
    """Tokens of one forward pass on one rank; a multiple of `data.block_tokens`."""
    lanes: PositiveInt = 1
    """Number of equal lanes of the batch. Each lane is summed on one rank, so this is the largest world size.
    With `determinism: bitwise`, every world size up to it gives the same bits."""
    determinism: Literal["bitwise", "fast"] = "bitwise"
    """`bitwise`: equal parameters for every world size. `fast`: equal parameters for an unchanged world size."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model; gradients are always summed in fp32. `auto`: bf16 on a GPU, fp32 on a CPU."""
    threads: PositiveInt = 1
    """CPU threads per rank; part of the run's meaning, because they change how sums are split."""
    compile: bool = False
    """Compile each decoder block with torch.compile."""
    activation_checkpointing: Literal["none", "selective", "block"] = "none"
    """Recomputation in the backward pass, to save memory. `selective`: cheap operations such as norms and rotary
    positions. `block`: whole decoder blocks, about a third more work."""
    loss_chunk_tokens: PositiveInt = 4096
    """Number of tokens whose logits are in memory at a time."""
    optimizer: AnyOptimizer = AdamW()
    schedule: Schedule = Schedule()
    stability: Stability = Stability()

    @property
    def lane_micro_batches(self) -> int:
        """Micro-batches per lane."""
        return self.batch_tokens // (self.lanes * self.micro_batch_tokens)

    @property
    def warmup_tokens(self) -> int:
        """Length of the warm-up."""
        share = self.schedule.warmup_share
        return self.schedule.warmup_tokens if share is None else round(share * self.tokens)

    @property
    def decay_tokens(self) -> int:
        """Length of the final decay of a `wsd` schedule."""
        share = self.schedule.decay_share
        return (self.schedule.decay_tokens or self.tokens // 5) if share is None else round(share * self.tokens)

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        unit = self.lanes * self.micro_batch_tokens
        if self.batch_tokens % unit:
            raise ValueError(
                f"batch_tokens {self.batch_tokens:,} cannot be divided into {self.lanes} lanes of whole "
                f"micro-batches of {self.micro_batch_tokens:,} tokens; the nearest that can: "
                f"{max(1, round(self.batch_tokens / unit)) * unit:,}"
            )
        decay = self.decay_tokens if self.schedule.kind == "wsd" else self.schedule.decay_tokens or 0
        if self.warmup_tokens + decay > self.tokens:
            raise ValueError(
                f"schedule: a warm-up of {self.warmup_tokens:,} tokens and a decay of {decay:,} are together longer "
                f"than the budget (train.tokens {self.tokens:,})"
            )
        return self


class Evaluation(Section):
    """Evaluation of the held-out loss."""

    every_tokens: PositiveInt | None = None
    """Interval between evaluations [tokens]. Default: a tenth of the run. The end of the run is always evaluated."""
    tokens: PositiveInt = 65_536
    """Maximum held-out text per evaluation [tokens]."""


class Checkpoint(Section):
    """Checkpoint interval and retention."""

    every_tokens: PositiveInt | None = None
    """Interval between saves [tokens]. Default: the optimal interval for the measured duration of saves and time
    between failures of this run. The end of the run and every preemption are always saved."""
    least_seconds: PositiveFloat = 15.0
    """Lower limit of the optimal interval [s]: every save costs requests, and money."""
    most_seconds: PositiveFloat = 1800.0
    """Upper limit of the optimal interval [s]."""
    expect_failure_seconds: PositiveFloat = 14_400.0
    """Assumed time between failures until the run has measured it [s]."""
    keep: Annotated[int, Field(ge=1)] = 3
    """Number of sound checkpoints that retention keeps."""


class Machine(Section):
    """Ranks, device, and time limits of the machines that train."""

    ranks: PositiveInt = 1
    """Training processes per machine; one per GPU if it has GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reshard: bool = True
    """Free gathered parameters after each use (less memory) instead of after each batch (less traffic)."""
    grace_seconds: PositiveFloat = 60.0
    """Time that a stopping run has to save before it is killed [s]."""
    heartbeat_seconds: PositiveFloat = 8.0
    """Interval between heartbeats [s]; a run with three missed heartbeats counts as dead."""
    hang_seconds: PositiveFloat = 20.0
    """Time without progress after which a rank counts as hung [s]; the attempt then fails and names the rank."""
    join_seconds: PositiveFloat = 300.0
    """Time that the nodes of a launch wait for each other at the start [s]."""
    retries: NonNegativeInt = 3
    """Consecutive failures without a token of progress after which a SLURM job is given up."""
    fruitless_attempts: PositiveInt = 20
    """Consecutive attempts without a token of progress, with any outcome, after which a SLURM job is given up."""


class Recipe(Section):
    """A training run."""

    name: Annotated[Name, Field(json_schema_extra=WHERE)]
    """Default name of runs of this recipe."""
    seed: NonNegativeInt = 0
    """Seed of the initial parameters and of the data order."""
    data: Data = Data()
    model: AnyModel
    train: Train
    evaluation: Annotated[Evaluation, Field(json_schema_extra=WHERE)] = Evaluation()
    checkpoint: Annotated[Checkpoint, Field(json_schema_extra=WHERE)] = Checkpoint()
    machine: Annotated[Machine, Field(json_schema_extra=WHERE)] = Machine()

    @property
    def data_path(self) -> str:
        """Folder of the built token shards on this machine."""
        return str(local_path(self.data.path or f"data/{self.name}"))

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        block = self.data.block_tokens
        if self.train.micro_batch_tokens % block:
            raise ValueError(
                f"train.micro_batch_tokens {self.train.micro_batch_tokens:,} is not a whole number of blocks of "
                f"data.block_tokens {block:,}"
            )
        last = -1
        for stage in self.data.curriculum:
            if stage.from_tokens <= last or (last < 0 and stage.from_tokens):
                raise ValueError("data.curriculum: stages must start at 0 and rise by from_tokens")
            if stage.from_tokens % self.train.batch_tokens:
                raise ValueError(
                    f"data.curriculum: from_tokens {stage.from_tokens:,} is not a multiple of train.batch_tokens "
                    f"{self.train.batch_tokens:,}"
                )
            if stage.sequence_tokens and block % stage.sequence_tokens:
                raise ValueError(
                    f"data.curriculum: sequence_tokens {stage.sequence_tokens:,} does not divide data.block_tokens "
                    f"{block:,}"
                )
            if stage.weights and (unknown := stage.weights.keys() - self.data.sources.keys()):
                raise ValueError(f"data.curriculum: weights name unknown sources: {', '.join(sorted(unknown))}")
            if stage.weights and not math.isfinite(sum(stage.weights.values())):
                raise ValueError("data.curriculum: the sum of the weights is too large for a number")
            last = stage.from_tokens
        return self
