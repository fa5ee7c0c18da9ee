"""Keys of a quantisation section that no reader understands: named, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bestserve.catalog.hf.config import QUANTISATION, Config, key_name

_DEEPEST = 8
MOST_NAMED = 12

# Their keys are names of modules or groups, not settings.
_OF_NAMES = frozenset(
    (
        *("dynamic", "extra_config", "quantized_layers", "layer_quant_config", "config_groups"),
        *("layer_type_quant_config", "fqn_to_config", "module_fqn_to_config"),
    )
)
# How the weights were found, or how kernels run: nothing inside says how they are stored.
_OPAQUE = frozenset(
    (
        *("meta", "producer", "exllama_config", "algo_config", "tune_metadata", "shapes"),
        *("sparsity_config", "transform_config", "modules_to_fuse", "export", "observer_kwargs"),
        *("softmax_quant_spec", "mm_config", "layout", "granularity", "dataset"),
    )
)


def unknown_keys(part: Config) -> list[str]:
    """Return a note that names the keys of a section that are not understood; empty if none."""
    found = list(dict.fromkeys(_unknown(part.values, part.prefix.rstrip("."), _DEEPEST)))
    if not found:
        return []
    first = ", ".join(repr(name) for name in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return [f"keys of {part.prefix.rstrip('.')} that are not understood: {first}{more}"]


def odd_sections(config: Config) -> list[str]:
    """Return a note for each key beside the section that looks like one but is not read."""
    return [
        f"{config.prefix}{key_name(key)} is not understood: nothing is taken from it"
        for key, value in config.values.items()
        if "quanti" in str(key) and key not in QUANTISATION and value
    ]


def _unknown(values: Mapping[Any, Any], where: str, depth: int) -> Iterator[str]:
    for key, value in values.items():
        name = key_name(key)
        if name not in _UNDERSTOOD and "." not in name:
            yield name if where.count(".") == 0 else f"{where.split('.', 1)[1]}.{name}"
        elif depth and isinstance(value, Mapping) and name not in _OPAQUE:
            inner = f"{where}.{name}"
            if name not in _OF_NAMES:
                yield from _unknown(value, inner, depth - 1)
                continue
            for module, own in value.items():
                if isinstance(own, Mapping):
                    yield from _unknown(own, f"{inner}.{key_name(module)}", depth - 2)


# What the readers use, and what says how the weights were found rather than how they are stored.
_WORDS = """
_data _default _load_in_4bit _load_in_8bit _type _version act_bits act_data_type act_dynamic
act_group_size act_mapping_type act_sym activation_dtype activation_scale_ub
activation_scheme activation_value_lb activation_value_ub actorder algo_config
autoround_version awq_block_size axis backend backward_dtype batch_size beta1 beta2 bias
bit_width bits block_name_to_quantize block_size block_structure bnb_4bit_compute_dtype
bnb_4bit_quant_storage bnb_4bit_quant_type bnb_4bit_use_double_quant cache_block_outputs
cast_kv_cache ch_axis channel_wise checkpoint_format config_groups damp_auto_increment
damp_percent data_type dataset default dequantize desc_act disable_exllama do_fuse dtype
dynamic elem_dtype enable_minmax_tuning enable_norm_bias_tuning enable_quanted_input exclude
exclude_modules exllama_config export extra_config fixed_by_user fmt format forward_dtype
forward_method fqn_to_config fuse_max_seq_len gemm_kernel_choice global_compression_ratio
global_quant_config gradient_accumulate_steps granularity group_size hadamard_group_size
hadamard_size has_zero_point ignore ignored_layers in_group_size
include_input_output_embeddings input_activations input_tensors int4_choose_qparams_algorithm
int4_packing_format intx_choose_qparams_algorithm intx_packing_format
is_checkpoint_fp8_serialized is_dynamic is_marlin_format is_scale_quant iters k_proj
kernel_preference kv_cache_post_rope kv_cache_quant_algo kv_cache_quant_config
kv_cache_scheme layer_quant_config layer_type_quant_config layout linear_class
linear_weights_not_to_quantize llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight
llm_int8_skip_modules llm_int8_threshold lm_head load_in_4bit load_in_8bit low_cpu_mem_usage
low_gpu_mem_usage lr mapping_type max_input_length meta minmax_lr mm_config mode
model_file_base_name model_name_or_path model_seqlen module_fqn_to_config
module_name_preceding_first_block modules_in_block_to_quantize modules_to_fuse
modules_to_not_convert moe_quant_algo mx_element_dtype nbits nbits_per_codebook
not_use_best_mse nsamples num_bits num_codebooks observer observer_cls observer_kwargs
offload_meta optimize out_group_size outlier_dtype output_activations output_tensors p
pack_dtype packing_format pad_token_id pre_quant_scale preserve_zero producer
pseudoquantization q_group_size qscheme quant_algo quant_block_list quant_config quant_method
quant_mode quant_type quant_type_kwargs quantization quantization_bits quantization_mode
quantization_status quantized_layers quantizer round_method round_zero scale_calculation_mode
scale_dtype scale_fmt scale_format scale_quant_params scale_type seqlen set_inductor_config
shapes skip_modules smoothquant_val softmax_quant_spec sparsity_config static_groups
store_master_weights strategy super_bits super_group_size supported_types sym symmetric
target_device targets to_quant_block_names tokenizer transform_config transform_init
true_sequential tune_metadata type untie_embedding_weights use_cuda_fp16 use_exllama use_hqq
use_rms_norm use_weight_norm v_proj version view_as_float w_bit wbits weight
weight_block_size weight_dtype weight_granularity weight_mapping_type weight_quant_params
weight_scale_dtype weight_zero_point_domain weights zero_point zero_point_domain
zero_point_type zero_quant_params zp_dtype
"""
_UNDERSTOOD = frozenset(_WORDS.split())
