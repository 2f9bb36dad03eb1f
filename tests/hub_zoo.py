"""Backbones of Keras Hub, small, from configuration: nothing is downloaded."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import keras
from specimens import Specimen

# Small, but no size is one, so that no fan is hidden: what every text model is made of, under its various names.
STACK = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
TEXT = {"vocabulary_size": 40, **STACK}
HEADS = {**TEXT, "num_heads": 2}
GROUPED = {**TEXT, "num_query_heads": 4, "num_key_value_heads": 2}
POSITIONS = {**HEADS, "max_sequence_length": 6}
PICTURE = {**STACK, "num_heads": 2, "image_shape": (16, 16, 3), "patch_size": 4}
EXPERTS = {**GROUPED, "num_experts": 4, "top_k": 2}
ENCODER_DECODER = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {
        "hidden_dim": 16,
        "intermediate_dim": 24,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    }.items()
}
LINEAR_ATTENTION = {
    **GROUPED,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
RESNET = {
    "input_conv_filters": [8],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16, 16],
    "stackwise_num_blocks": [1, 2, 1],
    "stackwise_num_strides": [1, 2, 2],
    "block_type": "bottleneck_block",
    "image_shape": (64, 64, 3),
}
SHORT = {"max_sequence_length": 6}
LONG_TEXT = {"max_position_embeddings": 16, "attention_bias": False, "attention_dropout": 0.0}


def _hub(name: str) -> Any:
    return getattr(importlib.import_module("keras_hub").models, name)


def _backbone(name: str, family: str, config: Mapping[str, Any], **how: Any) -> Specimen:
    """An entry whose model is one class and plain numbers."""
    return Specimen(name, family, lambda: _hub(name)(**config), **how)


def _without(config: Mapping[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    return {**{name: value for name, value in config.items() if name not in names}, **more}


def _resnet(**config: Any) -> keras.Model:
    return _hub("ResNetBackbone")(**{**RESNET, **config})


def _vit(**config: Any) -> keras.Model:
    return _hub("ViTBackbone")(**_without(PICTURE, "intermediate_dim", mlp_dim=24, patch_size=(4, 4)), **config)


def _mit(**config: Any) -> keras.Model:
    return _hub("MiTBackbone")(
        layerwise_depths=[1, 2],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        image_shape=(32, 32, 3),
        **config,
    )


def _hgnet(**config: Any) -> keras.Model:
    settings = {
        "depths": [1, 1],
        "embedding_size": 8,
        "hidden_sizes": [16, 32],
        "stem_channels": [3, 8, 8],
        "hidden_act": "relu",
        "use_learnable_affine_block": True,
        "stackwise_stage_filters": [[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
        "apply_downsample": [False, True],
        "use_lightweight_conv_block": [False, True],
        "image_shape": (32, 32, 3),
    }
    return _hub("HGNetV2Backbone")(**{**settings, **config})


def _two_towers(kind: str, **config: Any) -> keras.Model:
    """A picture's encoder and a text's, as CLIP and those after it are made."""
    vision = _hub(f"{kind}VisionEncoder")(**PICTURE, name="vision_encoder")
    text = _hub(f"{kind}TextEncoder")(**HEADS, **SHORT, embedding_dim=16, name="text_encoder")
    return _hub(f"{kind}Backbone")(vision_encoder=vision, text_encoder=text, **config)


def _blip2() -> keras.Model:
    vision = _hub("BLIP2VisionEncoder")(
        **_without(PICTURE, "image_shape", image_size=16),
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
    )
    qformer = _hub("BLIP2QFormer")(
        **STACK, num_query_tokens=2, num_heads=2, vision_dim=16, cross_attention_frequency=1, dropout=0.0,
        layer_norm_epsilon=1e-6,
    )  # fmt: skip
    language = _hub("BLIP2CustomOPT")(
        **{**HEADS, "max_sequence_length": 12},
        num_query_tokens=2,
        qformer_hidden_dim=16,
        dropout=0.0,
        language_projection=None,
    )
    return _hub("BLIP2Backbone")(vision_encoder=vision, qformer=qformer, language_model=language)


def _basnet() -> keras.Model:
    encoder = _resnet(
        image_shape=(None, None, 3),
        input_conv_filters=[64],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
    )
    return _hub("BASNetBackbone")(image_encoder=encoder, num_classes=1, image_shape=(64, 64, 3))


def _deeplab() -> keras.Model:
    return _hub("DeepLabV3Backbone")(
        image_encoder=_resnet(),
        spatial_pyramid_pooling_key="P4",
        low_level_feature_key="P2",
        upsampling_size=4,
        dilation_rates=[2, 3],
        projection_filters=8,
        image_shape=(64, 64, 3),
    )


def _depth_anything() -> keras.Model:
    shape = (84, 84, 3)
    encoder = _hub("DINOV2Backbone")(
        14, 4, 16, 2, 24, image_shape=shape, position_embedding_shape=shape, apply_layernorm=True
    )
    return _hub("DepthAnythingBackbone")(
        image_encoder=encoder,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 8, 16, 16],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )


def _parseq() -> keras.Model:
    return _hub("PARSeqBackbone")(
        image_encoder=_vit(use_class_token=False),
        vocabulary_size=40,
        max_label_length=6,
        decoder_hidden_dim=16,
        num_decoder_layers=1,
        num_decoder_heads=2,
        decoder_mlp_dim=24,
    )


def _retinanet() -> keras.Model:
    encoder = _resnet(
        stackwise_num_filters=[64, 8, 16, 16], stackwise_num_blocks=[1, 1, 1, 1], stackwise_num_strides=[1, 2, 2, 2]
    )
    return _hub("RetinaNetBackbone")(
        image_encoder=encoder, min_level=3, max_level=5, use_p5=True, image_shape=(64, 64, 3)
    )


def _segformer() -> keras.Model:
    return _hub("SegFormerBackbone")(image_encoder=_mit(), projection_filters=16)


def _autoencoder(**config: Any) -> keras.Model:
    # Keras Hub exports the autoencoder of Stable Diffusion under no public name.
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    widths = [32, 32, 32, 32]
    # `mode` is the sampler without chance.
    return VAEBackbone(widths, [1, 1, 1, 1], widths, [1, 1, 1, 1], sampler_method="mode", **config)


def _mmdit() -> keras.Model:
    # Nor has its transformer one.
    from keras_hub.src.models.stable_diffusion_3.mmdit import MMDiT

    return MMDiT(
        patch_size=2,
        hidden_dim=16,
        num_layers=2,
        num_heads=2,
        position_size=8,
        latent_shape=(8, 8, 4),
        context_shape=(6, 16),
        pooled_projection_shape=(16,),
    )


def _stable_diffusion() -> keras.Model:
    encoder = functools.partial(_hub("CLIPTextEncoder"), **HEADS, embedding_dim=16, intermediate_output_index=-2)
    return _hub("StableDiffusion3Backbone")(
        mmdit_patch_size=2,
        mmdit_hidden_dim=16,
        mmdit_num_layers=2,
        mmdit_num_heads=2,
        mmdit_position_size=8,
        mmdit_qk_norm=None,
        mmdit_dual_attention_indices=None,
        vae=_autoencoder(name="vae"),
        clip_l=encoder(name="clip_l"),
        clip_g=encoder(name="clip_g"),
        image_shape=(64, 64, 3),
    )


def _dfine() -> keras.Model:
    return _hub("DFineBackbone")(
        backbone=_hgnet(image_shape=(None, None, 3), out_features=["stage1", "stage2"]),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=4,
        num_labels=4,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=4,
        anchor_image_size=(32, 32),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[16, 32],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=24,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=(32, 32, 3),
        seed=0,
    )


def _sam() -> keras.Model:
    hub_layers = importlib.import_module("keras_hub").layers
    vision = _hub("ViTDetBackbone")(**VIT_DET)
    prompts = hub_layers.SAMPromptEncoder(
        hidden_size=8, image_embedding_size=(4, 4), input_image_size=(32, 32), mask_in_channels=8
    )
    masks = hub_layers.SAMMaskDecoder(
        num_layers=2, hidden_size=8, intermediate_dim=24, num_heads=2, embedding_dim=8, iou_head_hidden_dim=8
    )
    return _hub("SAMBackbone")(image_encoder=vision, prompt_encoder=prompts, mask_decoder=masks)


VIT_DET = {
    "hidden_size": 16,
    "num_layers": 2,
    "intermediate_dim": 24,
    "num_heads": 2,
    "global_attention_layer_indices": [1],
    "image_shape": (32, 32, 3),
    "patch_size": 8,
    "num_output_channels": 8,
    "window_size": 2,
}
MOBILENET = {
    "stackwise_expansion": [[12, 24], [24, 40]],
    "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[8, 8], [16, 16]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"], ["hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 32,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 40,
    "squeeze_and_excite": 0.5,
    "image_shape": (32, 32, 3),
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 5],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [8, 8, 16],
    "stackwise_output_filters": [8, 16, 16],
    "stackwise_expansion_ratios": [1, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2],
    "stackwise_block_types": ["fused", "unfused", "unfused"],
    "stackwise_force_input_filters": [0, 0, 0],
    "stackwise_nores_option": [False, False, False],
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "input_shape": (32, 32, 3),
}
MOBILENET_V5 = {
    name: [[start], [rest, rest]]
    for name, start, rest in [
        ("stackwise_block_types", "er", "uir"),
        ("stackwise_num_filters", 8, 16),
        ("stackwise_act_layers", "relu", "relu"),
        ("stackwise_exp_ratios", 4.0, 3.0),
        ("stackwise_se_ratios", 0.0, 0.0),
        ("stackwise_dw_kernel_sizes", 0, 5),
        ("stackwise_dw_start_kernel_sizes", 0, 0),
        ("stackwise_dw_end_kernel_sizes", 0, 0),
        ("stackwise_exp_kernel_sizes", 3, 0),
        ("stackwise_pw_kernel_sizes", 1, 0),
        ("stackwise_num_heads", 0, 0),
        ("stackwise_key_dims", 0, 0),
        ("stackwise_value_dims", 0, 0),
        ("stackwise_kv_strides", 0, 0),
        ("stackwise_use_cpe", False, False),
    ]
} | {"stackwise_num_blocks": [1, 2], "stackwise_strides": [[2], [2, 1]], "stem_size": 8, "use_msfa": False}
SHARED_EXPERT = {**EXPERTS, "moe_intermediate_dim": 16, "shared_expert_intermediate_dim": 24}

BACKBONES = [
    # Text, one way or both ways.
    _backbone("AlbertBackbone", "text", {**POSITIONS, "embedding_dim": 8, "num_inner_repetitions": 2}),
    _backbone("BertBackbone", "text", POSITIONS),
    _backbone("BloomBackbone", "text", HEADS),
    _backbone("DebertaV3Backbone", "text", {**POSITIONS, "bucket_size": 4}),
    _backbone("DistilBertBackbone", "text", POSITIONS),
    _backbone("ElectraBackbone", "text", _without(POSITIONS, "vocabulary_size", vocab_size=40, embedding_dim=8)),
    _backbone("FNetBackbone", "text", {**TEXT, **SHORT}),
    _backbone("FalconBackbone", "text", {**TEXT, "num_attention_heads": 2}),
    _backbone("GPT2Backbone", "text", POSITIONS),
    _backbone("GPTNeoXBackbone", "text", POSITIONS),
    _backbone("GemmaBackbone", "text", {**GROUPED, "head_dim": 8}),
    _backbone("Gemma3Backbone", "text", {**GROUPED, "head_dim": 8, "image_size": 16}),
    _backbone("GptOssBackbone", "text", {**EXPERTS, "sliding_window": 4}),
    _backbone("Llama3Backbone", "text", GROUPED),
    _backbone("LlamaBackbone", "text", GROUPED),
    _backbone("MistralBackbone", "text", {**GROUPED, "sliding_window": 4}),
    _backbone("MixtralBackbone", "text", {**EXPERTS, "sliding_window": 4}),
    _backbone("OPTBackbone", "text", POSITIONS),
    _backbone("Phi3Backbone", "text", GROUPED),
    _backbone("Qwen2Backbone", "text", GROUPED),
    _backbone("Qwen3Backbone", "text", {**GROUPED, "head_dim": 8}),
    _backbone("Qwen3MoeBackbone", "text", {**EXPERTS, "head_dim": 8, "moe_intermediate_dim": 16}),
    _backbone("Qwen3_5Backbone", "text", LINEAR_ATTENTION),
    _backbone("QwenMoeBackbone", "text", SHARED_EXPERT),
    _backbone(
        "RWKV7Backbone",
        "text",
        {
            **_without(TEXT, "hidden_dim", hidden_size=16),
            "head_size": 4,
            "gate_lora": 8,
            "mv_lora": 8,
            "aaa_lora": 8,
            "decay_lora": 8,
        },
        length=16,
    ),
    _backbone("RobertaBackbone", "text", POSITIONS),
    _backbone("RoformerV2Backbone", "text", {**HEADS, "head_size": 8}),
    _backbone(
        "SmolLM3Backbone",
        "text",
        {
            **TEXT,
            **LONG_TEXT,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_layer_enabled_list": [True, False],
            "layer_types": ["attention", "attention"],
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-5,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    _backbone("XLMRobertaBackbone", "text", POSITIONS),
    _backbone("XLNetBackbone", "text", HEADS),
    # From text to text.
    _backbone("BartBackbone", "text", POSITIONS),
    _backbone(
        "EdRecBackbone",
        "text",
        {
            "vocab_size": 40,
            "num_layers_enc": 2,
            "num_layers_dec": 2,
            "hidden_dim": 16,
            "intermediate_dim": 24,
            "num_heads": 2,
        },
    ),
    _backbone("T5Backbone", "text", HEADS),
    _backbone("T5GemmaBackbone", "text", {"vocabulary_size": 40, **ENCODER_DECODER, "sliding_window": 4}),
    _backbone("T5Gemma2Backbone", "text", {"vocabulary_size": 40, **ENCODER_DECODER, "sliding_window": 4}),
    # Proteins.
    _backbone("ESM2Backbone", "protein", HEADS),
    # Pictures.
    Specimen("BASNetBackbone", "image", _basnet),
    _backbone(
        "CSPNetBackbone",
        "image",
        {
            "stem_filters": 8,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stackwise_depth": [1, 2],
            "stackwise_strides": 2,
            "stackwise_num_filters": [8, 16],
            "block_type": "dark_block",
            "stage_type": "csp",
            "bottle_ratio": (0.5, 1.0),
            "block_ratio": (1.0, 0.5),
            "expand_ratio": (2.0, 1.0),
            "stem_padding": "same",
            "down_growth": True,
            "image_shape": (32, 32, 3),
        },
    ),
    Specimen("DFineBackbone", "image", _dfine),
    _backbone(
        "DINOV2Backbone", "image", {**PICTURE, "num_register_tokens": 2, "position_embedding_shape": (16, 16, 3)}
    ),
    _backbone("DINOV3Backbone", "image", {**PICTURE, "use_gated_mlp": True}),
    Specimen("DeepLabV3Backbone", "image", _deeplab),
    _backbone("DeiTBackbone", "image", PICTURE),
    _backbone(
        "DenseNetBackbone", "image", {"stackwise_num_repeats": [2, 2], "growth_rate": 4, "image_shape": (32, 32, 3)}
    ),
    Specimen("DepthAnythingBackbone", "image", _depth_anything),
    _backbone("EfficientNetBackbone", "image", EFFICIENTNET),
    Specimen("HGNetV2Backbone", "image", _hgnet),
    Specimen("MiTBackbone", "image", _mit),
    _backbone("MobileNetBackbone", "image", MOBILENET),
    _backbone("MobileNetV5Backbone", "image", {**MOBILENET_V5, "image_shape": (32, 32, 3)}),
    Specimen("PARSeqBackbone", "image", _parseq),
    Specimen("ResNetBackbone", "image", _resnet),
    Specimen("RetinaNetBackbone", "image", _retinanet),
    Specimen("SAMBackbone", "image", _sam),
    Specimen("SegFormerBackbone", "image", _segformer),
    _backbone(
        "SwinTransformerBackbone",
        "image",
        {"image_shape": (32, 32, 3), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
    ),
    _backbone(
        "VGGBackbone",
        "image",
        {"stackwise_num_repeats": [1, 2], "stackwise_num_filters": [8, 16], "image_shape": (16, 16, 3)},
    ),
    Specimen("ViTBackbone", "image", _vit),
    _backbone("ViTDetBackbone", "image", VIT_DET),
    _backbone(
        "XceptionBackbone",
        "image",
        {
            "stackwise_conv_filters": [[8, 16], [24, 24], [32, 32]],
            "stackwise_pooling": [False, True, False],
            "image_shape": (64, 64, 3),
        },
    ),
    # Moving pictures.
    _backbone(
        "VideoPrismBackbone",
        "video",
        {
            **_without(PICTURE, "num_layers"),
            "num_frames": 4,
            "num_spatial_layers": 1,
            "num_temporal_layers": 1,
            "num_auxiliary_layers": 1,
        },
    ),
    # Pictures and text.
    Specimen("BLIP2Backbone", "image and text", _blip2),
    Specimen("CLIPBackbone", "image and text", functools.partial(_two_towers, "CLIP", projection_dim=16)),
    Specimen("MetaCLIP2Backbone", "image and text", functools.partial(_two_towers, "MetaCLIP2", projection_dim=16)),
    _backbone(
        "PaliGemmaBackbone",
        "image and text",
        {
            **GROUPED,
            "head_dim": 8,
            "image_size": 16,
            "vit_patch_size": 4,
            "vit_num_layers": 2,
            "vit_num_heads": 2,
            "vit_hidden_dim": 16,
            "vit_intermediate_dim": 24,
        },
    ),
    Specimen("SigLIPBackbone", "image and text", functools.partial(_two_towers, "SigLIP")),
    # Sound.
    _backbone(
        "MoonshineBackbone",
        "audio",
        {
            **TEXT,
            "filter_dim": 16,
            "encoder_num_layers": 2,
            "decoder_num_layers": 2,
            "encoder_num_heads": 2,
            "decoder_num_heads": 2,
        },
        shapes={"encoder_input_values": (2, 1024, 1), "encoder_padding_mask": (2, 1024)},
    ),
    _backbone(
        "WhisperBackbone",
        "audio",
        {**HEADS, "num_mels": 12, "max_encoder_sequence_length": 6, "max_decoder_sequence_length": 6},
    ),
    # Diffusion.
    _backbone(
        "FluxBackbone",
        "diffusion",
        {
            "input_channels": 16,
            "hidden_size": 64,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 1,
            "depth_single_blocks": 2,
            "axes_dim": [8, 12, 12],
            "theta": 10_000,
            "use_bias": True,
            "guidance_embed": True,
            "image_shape": (6, 16),
            "text_shape": (6, 16),
            "image_ids_shape": (6, 3),
            "text_ids_shape": (6, 3),
            "y_shape": (16,),
        },
    ),
    Specimen("MMDiT", "diffusion", _mmdit),
    Specimen("StableDiffusion3Backbone", "diffusion", _stable_diffusion),
    Specimen("VAEBackbone", "diffusion", _autoencoder, length=64),
]
