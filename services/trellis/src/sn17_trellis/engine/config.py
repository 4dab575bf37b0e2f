"""Configurations as they stand in `pipeline.json` and `ckpts/<name>.json`.

Every size of a network comes from these files. An argument the engine does not know is an error: it may
change the network, and a network that is nearly right produces assets that are nearly right.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ROLES = ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model", "slat_decoder_gs")
"""Entries of `models` the engine needs; the others (mesh and field decoders, encoders) are left alone."""

OWNERS = ("microsoft", "JeffreyXiang")
"""Accounts the same repositories were published under."""

DEFAULT_TEXT_MODEL = "openai/clip-vit-large-patch14"
DEFAULT_IMAGE_MODEL = "dinov2_vitl14_reg"
IMAGE_MODELS = {DEFAULT_IMAGE_MODEL: "facebook/dinov2-with-registers-large"}
"""Names of `pipeline.json` (those of torch.hub) to repositories with the same weights."""

Positive = Annotated[int, Field(gt=0)]


class FrozenConfig(BaseModel):
    """Values that are what the file says: nothing unknown, nothing changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _FlowConfig(FrozenConfig):
    """What both diffusion transformers share."""

    resolution: Positive
    in_channels: Positive
    model_channels: Positive
    cond_channels: Positive
    out_channels: Positive
    num_blocks: Positive
    num_heads: Positive | None = None
    num_head_channels: Positive = 64
    mlp_ratio: Annotated[float, Field(gt=0)] = 4
    pe_mode: Literal["ape"] = "ape"
    use_fp16: bool = False
    use_checkpoint: bool = False
    share_mod: Literal[False] = False
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False

    @property
    def heads(self) -> int:
        """Attention heads: given, or derived from the channels per head."""
        return self.num_heads or self.model_channels // self.num_head_channels

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> _FlowConfig:
        if self.model_channels % self.heads:
            raise ValueError(f"model_channels {self.model_channels} is no multiple of num_heads {self.heads}")
        return self


class StructureFlowConfig(_FlowConfig):
    """`SparseStructureFlowModel`: a transformer over a dense latent grid of `resolution`^3 tokens."""

    patch_size: Literal[1] = 1


class LatentFlowConfig(_FlowConfig):
    """`SLatFlowModel`: a transformer over occupied voxels, coarsened `patch_size` times per axis."""

    patch_size: Positive = 2
    num_io_res_blocks: Positive = 2
    io_block_channels: tuple[Positive, ...] | None = None
    use_skip_connection: bool = True

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of each level above the transformer, finest first."""
        return self.io_block_channels or ()

    @model_validator(mode="after")
    def _levels_fit_patch(self) -> LatentFlowConfig:
        if self.patch_size != 2 ** len(self.levels):
            raise ValueError(
                f"patch_size {self.patch_size} needs log2 of it io_block_channels, got {self.levels}"
            )
        return self


class StructureDecoderConfig(FrozenConfig):
    """`SparseStructureDecoder`: latent grid to occupancy logits, upsampled 2^(len(channels) - 1) times."""

    out_channels: Positive
    latent_channels: Positive
    num_res_blocks: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]
    num_res_blocks_middle: Positive = 2
    norm_type: Literal["layer"] = "layer"
    use_fp16: bool = False


class RepresentationConfig(FrozenConfig):
    """How the decoder's raw channels become gaussian parameters."""

    lr: dict[Literal["_xyz", "_features_dc", "_opacity", "_scaling", "_rotation"], float]
    perturb_offset: bool
    voxel_size: Annotated[float, Field(gt=0)]
    num_gaussians: Positive
    filter_kernel_size_2d: Annotated[float, Field(alias="2d_filter_kernel_size", ge=0)]
    filter_kernel_size_3d: Annotated[float, Field(alias="3d_filter_kernel_size", ge=0)]
    scaling_bias: Annotated[float, Field(gt=0)]
    opacity_bias: Annotated[float, Field(gt=0, lt=1)]
    scaling_activation: Literal["softplus", "exp"]


class GaussianDecoderConfig(FrozenConfig):
    """`SLatGaussianDecoder`: windowed transformer over voxels, `num_gaussians` gaussians out of each."""

    resolution: Positive
    model_channels: Positive
    latent_channels: Positive
    num_blocks: Positive
    num_heads: Positive | None = None
    num_head_channels: Positive = 64
    mlp_ratio: Annotated[float, Field(gt=0)] = 4
    attn_mode: Literal["swin"] = "swin"
    window_size: Positive = 8
    pe_mode: Literal["ape"] = "ape"
    use_fp16: bool = False
    use_checkpoint: bool = False
    qk_rms_norm: bool = False
    representation_config: RepresentationConfig

    @property
    def heads(self) -> int:
        """Attention heads: given, or derived from the channels per head."""
        return self.num_heads or self.model_channels // self.num_head_channels


SamplerName = Literal["FlowEulerGuidanceIntervalSampler", "FlowEulerCfgSampler", "FlowEulerSampler"]

TAKEN: dict[SamplerName, tuple[str, ...]] = {
    "FlowEulerSampler": ("steps", "rescale_t"),
    "FlowEulerCfgSampler": ("steps", "rescale_t", "cfg_strength"),
    "FlowEulerGuidanceIntervalSampler": ("steps", "rescale_t", "cfg_strength", "cfg_interval"),
}
"""Parameters of each sampler of the reference (`trellis/pipelines/samplers/flow_euler.py`)."""

MAX_STEPS = 1000
"""Of a checkpoint and of measurements; a request may ask for `MAX_REQUEST_STEPS`."""
MAX_REQUEST_STEPS = 200
MAX_GUIDANCE = 20.0


class SamplerParams(FrozenConfig):
    """Flow-Euler sampling with classifier-free guidance in an interval of time.

    `cfg_strength` w guides as (1 + w) * conditional - w * unconditional for times in the closed
    `cfg_interval`. The defaults are those of the reference's samplers. `sampler` decides which parameters may
    differ from them: `FlowEulerSampler` is never guided, `FlowEulerCfgSampler` at every step.
    """

    sampler: SamplerName = "FlowEulerGuidanceIntervalSampler"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 50
    cfg_strength: Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)] = 3.0
    cfg_interval: tuple[
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)],
        Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)],
    ] = (0.0, 1.0)
    rescale_t: Annotated[float, Field(ge=0.1, le=20, allow_inf_nan=False)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _without_guidance(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sampler") == "FlowEulerSampler":
            return {"cfg_strength": 0.0, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> SamplerParams:
        if self.cfg_interval[0] > self.cfg_interval[1]:
            raise ValueError(f"cfg_interval must be [low, high], got {list(self.cfg_interval)}")
        if self.sampler == "FlowEulerSampler" and self.cfg_strength:
            raise ValueError("this checkpoint's sampler, FlowEulerSampler, takes no guidance")
        if self.sampler != "FlowEulerGuidanceIntervalSampler" and self.cfg_interval != (0.0, 1.0):
            raise ValueError(f"{self.sampler} takes no cfg_interval")
        return self

    def override(self, **values: object) -> SamplerParams:
        """A validated copy with every value replaced that is not None. Raises ValueError."""
        changed = {name: value for name, value in values.items() if value is not None}
        return SamplerParams.model_validate({**self.model_dump(), **changed})


class Savings(FrozenConfig):
    """Work that one stage leaves out; the defaults leave out none and change no result.

    `solver` "ab2" carries the velocity's slope on (Adams-Bashforth). `unconditional_every`: the branch
    without the condition runs in every so many-th guided step, in between its last difference serves.
    `full_steps` (structure only): the steps whose blocks all run; in the others the first block runs, and the
    rest contribute what they did before. None: all steps. `forecast`: the share of the slope between their
    last two contributions with which that is carried on in time; 0 holds the last one.
    """

    solver: Literal["euler", "ab2"] = "euler"
    unconditional_every: Annotated[int, Field(ge=1, le=50)] = 1
    full_steps: tuple[Annotated[int, Field(ge=0, lt=MAX_STEPS)], ...] | None = None
    forecast: Annotated[float, Field(ge=0, le=1)] = 0.0


EXACT = Savings()


class SamplerArgs(FrozenConfig):
    """What the reference's samplers are made with; `sigma_min` does not enter Euler steps of a velocity."""

    sigma_min: Annotated[float, Field(ge=0, lt=1)] = 1e-5


class SamplerSpec(BaseModel):
    """A sampler entry of `pipeline.json`: a parameter that the named sampler does not take is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SamplerName
    args: SamplerArgs = SamplerArgs()
    params: SamplerParams = SamplerParams()

    @model_validator(mode="before")
    @classmethod
    def _params_of_this_sampler(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("name") not in TAKEN:
            return values
        name, params = values["name"], values.get("params", {})
        if not isinstance(params, dict):
            return values
        unknown = sorted(set(params) - set(TAKEN[name]))
        if unknown:
            raise ValueError(f"{name} takes {', '.join(TAKEN[name])}, not {', '.join(unknown)}")
        return {**values, "params": {**params, "sampler": name}}


class Normalization(FrozenConfig):
    """Per-channel mean and standard deviation of the structured latents."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class PipelineArgs(BaseModel):
    """`args` of `pipeline.json`; keys for other outputs (meshes, fields) are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    models: dict[str, str]
    sparse_structure_sampler: SamplerSpec
    slat_sampler: SamplerSpec
    slat_normalization: Normalization
    text_cond_model: str | None = None
    image_cond_model: str | None = None


class PipelineConfig(BaseModel):
    """A whole `pipeline.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Literal["TrellisTextTo3DPipeline", "TrellisImageTo3DPipeline"]
    args: PipelineArgs

    @property
    def conditioner(self) -> str:
        """The repository or folder of the conditioning model."""
        if self.name == "TrellisTextTo3DPipeline":
            return self.args.text_cond_model or DEFAULT_TEXT_MODEL
        named = self.args.image_cond_model or DEFAULT_IMAGE_MODEL
        return IMAGE_MODELS.get(named, named)


class ModelFile(BaseModel):
    """`ckpts/<name>.json`: which class, with which arguments."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    args: dict[str, Any]


Lane = Literal["exact", "fast"]
"""`exact` computes every step; `fast` leaves out what the checkpoint's calibration allows."""


class Preset(FrozenConfig):
    """Steps and guidance of both stages under one name; in the fast lane those of the calibration count."""

    structure_steps: int
    structure_cfg: float
    latent_steps: int
    latent_cfg: float
    lane: Lane = "exact"


PRESETS: dict[str, Preset] = {
    "phase1": Preset(structure_steps=60, structure_cfg=7.5, latent_steps=50, latent_cfg=3.5),
    "fast": Preset(structure_steps=25, structure_cfg=7.5, latent_steps=25, latent_cfg=3.5),
    "phase1-fast-lane": Preset(
        structure_steps=60, structure_cfg=7.5, latent_steps=50, latent_cfg=3.5, lane="fast"
    ),
}
"""`phase1` are the values of the miner's design and the default; `fast` has fewer steps, each of them exact;
`phase1-fast-lane` is `phase1` in the fast lane of a calibrated checkpoint.
"""
