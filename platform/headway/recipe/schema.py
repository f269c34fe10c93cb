"""What a recipe may say: one pydantic model per section, each key with its unit, default and meaning.

Tokens are the only clock: every key that ends in `_tokens` counts tokens of the whole global batch.
A key marked `WHERE` says only where or how visibly a run runs; all others are part of its meaning.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

WHERE: dict[str, Any] = {"x-meaning": False}
"""Schema mark of a key that does not change the parameters a run ends with."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Section(BaseModel):
    """A strict, frozen group of keys: unknown ones are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Source(Section):
    """One corpus of documents."""

    path: str
    """A file, a folder (searched through), a glob, or `python:stdlib` (the interpreter's own library).
    Text, code, JSONL and parquet, plain or compressed with gzip or Zstandard, told apart by their endings."""
    text_key: str = "text"
    """The JSONL field or parquet column that holds a document's text."""


class Tokenizer(Section):
    """Byte-level BPE, trained once on the sources and frozen."""

    vocabulary: Annotated[int, Field(ge=257, le=1 << 20)] = 32_768
    """Number of tokens, the 256 bytes and the end-of-document token included."""
    sample_bytes: PositiveInt = 64 << 20
    """How much text, spread evenly over the sources, the merges are learned from [bytes]."""


class Stage(Section):
    """What the model is fed from a token position on."""

    from_tokens: NonNegativeInt = 0
    """First token position of this stage; a multiple of `train.batch_tokens`."""
    sequence_tokens: PositiveInt | None = None
    """Length that blocks are cut into; divides `data.block_tokens`, which is the default."""
    weights: dict[str, PositiveFloat] | None = None
    """Share of each source, by name; normalised. Default: each source by its number of tokens."""


class Data(Section):
    """Which text, cut how, in which mixture."""

    path: Annotated[str | None, Field(json_schema_extra=WHERE)] = None
    """Folder of the built token shards. Default: `data/<recipe name>`."""
    sources: dict[Name, Source] = {"stdlib": Source(path="python:stdlib")}
    """The corpora, by name."""
    tokenizer: Tokenizer = Tokenizer()
    block_tokens: PositiveInt = 2048
    """Length of a packed block: the longest sequence the model is trained on [tokens]."""
    held_out_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.005
    """Share of documents kept out of training, for evaluation."""
    document_bytes: PositiveInt = 1 << 20
    """Longer documents are cut into documents of at most this length, after a line's end [bytes]."""
    curriculum: Annotated[list[Stage], Field(min_length=1)] = [Stage()]
    """Stages in the order of their `from_tokens`; the first starts at 0."""


class Model(Section):
    """A Llama-shaped decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    layers: PositiveInt
    width: PositiveInt
    """Width of the residual stream."""
    heads: PositiveInt
    kv_heads: PositiveInt
    """Key and value heads; divides `heads`."""
    ffn_width: PositiveInt
    """Inner width of the SwiGLU feed-forward."""
    rope_theta: PositiveFloat = 10_000.0
    norm_eps: PositiveFloat = 1e-5
    tie_embeddings: bool = False
    """Whether the output projection is the embedding matrix."""
    attention: Literal["causal", "document"] = "causal"
    """`document` keeps attention inside a document; `causal` lets it reach back to the block's start."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        if (self.width // self.heads) % 2:
            raise ValueError(f"width / heads is {self.width // self.heads}; rotary positions need an even number")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        return self


class Optimizer(Section):
    """AdamW (Loshchilov and Hutter, 2019)."""

    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    eps: PositiveFloat = 1e-8
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """Applied to matrices only."""
    clip_norm: PositiveFloat = 1.0
    """Largest L2 norm of the whole gradient."""


class Schedule(Section):
    """The learning rate as a function of tokens consumed."""

    kind: Literal["cosine", "wsd"] = "cosine"
    """`cosine`, or warm-up, stable, decay (`wsd`: constant, then linear down)."""
    warmup_tokens: NonNegativeInt = 0
    decay_tokens: PositiveInt | None = None
    """`wsd` only: length of the final decay. Default: a fifth of the budget."""
    final_ratio: Share = 0.1
    """Learning rate at the end, as a share of the peak."""


class Stability(Section):
    """What is done when the loss is not finite, or spikes. Each case is a recorded decision."""

    on_nonfinite: Literal["skip", "rollback", "stop"] = "skip"
    on_spike: Literal["ignore", "skip", "rollback", "stop"] = "ignore"
    spike_sigmas: PositiveFloat = 6.0
    """A spike is a batch loss this many standard deviations above the mean of the last `spike_window`."""
    spike_window: Annotated[int, Field(ge=4)] = 64
    """Number of batches that the mean and deviation are taken over."""
    rollback_batches: PositiveInt = 8
    """How many batches, the bad one included, are skipped after a roll-back."""
    limit: PositiveInt = 16
    """Decisions after which the run is stopped as failed."""


class Train(Section):
    """How many tokens, in which batches, with which arithmetic."""

    tokens: PositiveInt
    """The budget: training ends at the first batch that reaches it."""
    batch_tokens: PositiveInt
    """Global batch [tokens]; the same whatever the world size."""
    micro_batch_tokens: PositiveInt
    """What one rank puts through the model at once [tokens]; whole blocks."""
    lanes: PositiveInt = 1
    """The batch is cut into this many equal lanes, each summed on one rank: the most ranks that can share it.
    Any world size up to it gives the same bits with `determinism: bitwise`."""
    determinism: Literal["bitwise", "fast"] = "bitwise"
    """`bitwise`: equal parameters for every world size. `fast`: equal for an unchanged world size."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model; sums of gradients are fp32 always. `auto`: bf16 on a GPU, fp32 on a CPU."""
    threads: PositiveInt = 1
    """CPU threads per rank: they change how sums are split, so they are part of the run's meaning."""
    compile: bool = False
    """Compile each block with torch.compile."""
    activation_checkpointing: Literal["none", "selective", "block"] = "none"
    """What the backward pass computes again, for less memory: `selective` what is cheap (norms, rotations and the
    like), `block` each block whole, which is about a third more work."""
    loss_chunk_tokens: PositiveInt = 4096
    """Logits are computed for this many tokens at a time, so they never exist whole."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    stability: Stability = Stability()

    @property
    def lane_micro_batches(self) -> int:
        """Micro-batches in one lane."""
        return self.batch_tokens // (self.lanes * self.micro_batch_tokens)

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        unit = self.lanes * self.micro_batch_tokens
        if self.batch_tokens % unit:
            raise ValueError(
                f"batch_tokens {self.batch_tokens:,} cannot be divided into {self.lanes} lanes of whole "
                f"micro-batches of {self.micro_batch_tokens:,} tokens; the nearest that can: "
                f"{max(1, round(self.batch_tokens / unit)) * unit:,}"
            )
        if self.schedule.warmup_tokens + (self.schedule.decay_tokens or 0) > self.tokens:
            raise ValueError("schedule: warmup_tokens and decay_tokens are longer than the budget of tokens")
        return self


class Evaluation(Section):
    """Held-out loss."""

    every_tokens: PositiveInt | None = None
    """How often [tokens]. Default: ten times a run, and at its end."""
    tokens: PositiveInt = 65_536
    """How much held-out text each time [tokens], at most."""


class Checkpoint(Section):
    """When to save, and what to keep."""

    every_tokens: PositiveInt | None = None
    """How often [tokens]. Default: as often as pays off, by what was measured in this run: what saves cost, and how
    long it is from one kill to the next. The end and every preemption are saved in any case."""
    least_seconds: PositiveFloat = 15.0
    """What pays off is never taken to be less than this [s]: every save is requests, and money."""
    most_seconds: PositiveFloat = 1800.0
    """Nor more than this [s]."""
    expect_failure_seconds: PositiveFloat = 14_400.0
    """How long until a kill is expected, as long as the run knows no better [s]."""
    keep: Annotated[int, Field(ge=1)] = 3
    """Sound checkpoints that retention leaves."""


class Machine(Section):
    """Where the run runs."""

    ranks: PositiveInt = 1
    """Training processes on this machine, one per GPU where there are any."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reshard: bool = True
    """Let go of gathered parameters after each use (less memory), or only after each batch (less traffic)."""
    grace_seconds: PositiveFloat = 60.0
    """How long a stopping run may take to save before it is killed."""
    heartbeat_seconds: PositiveFloat = 2.0
    """How often a run says that it is alive; three missed ones count as dead."""
    hang_seconds: PositiveFloat = 20.0
    """A rank that gives no sign of life for so long counts as stuck [s]; the attempt then fails, and says which."""
    join_seconds: PositiveFloat = 300.0
    """How long the machines of a launch wait for each other to begin [s]."""
    retries: NonNegativeInt = 3
    """Failures in a row, without a token of progress between them, after which a job on SLURM is given up."""
    fruitless_attempts: PositiveInt = 20
    """Attempts in a row without a token of progress, however they ended, after which a job on SLURM is given up."""


class Recipe(Section):
    """One training run, whole."""

    name: Annotated[Name, Field(json_schema_extra=WHERE)]
    """The default name of runs made from it."""
    seed: NonNegativeInt = 0
    """Seed of the parameters and of the order of the data."""
    data: Data = Data()
    model: Model
    train: Train
    evaluation: Annotated[Evaluation, Field(json_schema_extra=WHERE)] = Evaluation()
    checkpoint: Annotated[Checkpoint, Field(json_schema_extra=WHERE)] = Checkpoint()
    machine: Annotated[Machine, Field(json_schema_extra=WHERE)] = Machine()

    @property
    def data_path(self) -> str:
        """Folder of the built token shards."""
        return self.data.path or f"data/{self.name}"

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
            if stage.weights and (strangers := stage.weights.keys() - self.data.sources.keys()):
                raise ValueError(f"data.curriculum: weights name unknown sources: {', '.join(sorted(strangers))}")
            last = stage.from_tokens
        return self
