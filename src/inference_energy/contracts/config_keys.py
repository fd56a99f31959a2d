"""Keys of a model's config.json: which change no count, and which must not be overlooked.

A config.json states an architecture by its keys, and a reader that does not know a key counts another model. So each
key is used by the reader, or listed here as without effect on weights, cache and FLOPs, or it is an error.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_HARMLESS_TEXT = """
architectures model_type transformers_version _name_or_path name_or_path auto_map torch_dtype dtype
quantization_config compression_config use_cache use_return_dict return_dict return_dict_in_generate output_attentions
output_hidden_states output_scores torchscript use_bfloat16 pruned_heads chunk_size_feed_forward task_specific_params
problem_type id2label label2id finetuning_task prefix tokenizer_class gradient_checkpointing
use_gradient_checkpointing pretraining_tp attn_implementation _attn_implementation _attn_implementation_autoset
attn_impl use_flash_attn use_flash_attention use_sdpa use_xformers use_fused_rope use_fused_rms_norm use_fused_rmsnorm
use_memory_efficient_attention flash_attn_bias use_flash_attn_qkvpacked hidden_act hidden_activation
activation_function activation activation_type activation_precision ffn_act_fn rms_norm_eps layer_norm_eps
layer_norm_epsilon norm_eps norm_epsilon layernorm_epsilon ln_eps norm_type layer_norm_type use_rms_norm rmsnorm
rms_norm layernorm_compute_fp32 initializer_range initializer_factor init_device init_config initializer std_base_init
max_position_embeddings max_seq_len max_sequence_length max_seq_length seq_length seq_len n_ctx n_positions
max_model_len model_max_length training_max_length original_max_position_embeddings position_embedding_type
positional_embedding pe_type attn_pdrop embd_pdrop resid_pdrop emb_pdrop resid_pdrop partial_rotary_factor use_alibi
alibi no_rope_layers no_rope_layer_interval nope_layer_interval attn_temperature_tuning attn_temperature_len
floor_scale attn_scale attention_scale attention_multiplier embedding_multiplier embedding_multiplier_scale
output_multiplier_scale attn_output_multiplier residual_multiplier logits_scaling logit_scale query_pre_attn_scalar
scale_emb scale_depth scale_width dim_model_base scale_attn_weights scale_attn_by_inverse_layer_idx
scale_attention_softmax_in_fp32 attention_softmax_in_fp32 softmax_in_fp32 softmax_scale reorder_and_upcast_attn
apply_query_key_layer_scaling apply_residual_connection_post_layernorm fp32_residual_connection bias_dropout_fusion
masked_softmax_fusion unk_token_id slow_but_exact skip_bias_add skip_bias_add_qkv clip_qkv qkv_clip norm_topk_prob
scoring_func topk_method topk_group n_group num_expert_group moe_topk_group norm_expert_weight routed_scaling_factor
moe_routed_scaling_factor moe_router_scaling_factor moe_router_activation_func router_jitter_noise input_jitter_noise
ep_size moe_capacity moe_gate moe_gate_act moe_dropout_prob moe_group moe_group_experts moe_norm_min moe_use_hard_gate
moe_drop_tokens moe_train_capacity_factor moe_eval_capacity_factor moe_min_capacity moe_token_dropping
enable_expert_tensor_parallelism moe_expert_parallelism moe_random_routing_dropped_token moe_jitter_eps
moe_normalize_expert_weights moe_multimodal_dispatch_use_allgather moe_all_gather_output_all_to_all expert_capacity
seq_aux uniform_expert_assignment num_nextn_predict_layers num_token_predict_layers num_mtp_modules use_mtp ssmax
initial_context_length swiglu_limit use_rotary_pos_emb is_decoder language languages license name version
unsloth_version unsloth_fixed unsloth_training pad_vocab_size_multiple_of pad_vocab_size_multiple ignore_index
is_composition bf16 fp16 fp32 use_dynamic_ntk use_logn_attn use_cache_kernel use_cache_quantization quantization_bit
pre_seq_len prefix_projection original_rope interleaved_qkv interleaved_rotary onnx_safe save_logits use_pad_tokenizer
verbose summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj temperature
top_k top_p do_sample num_beams num_beam_groups repetition_penalty length_penalty early_stopping diversity_penalty
no_repeat_ngram_size min_length max_length typical_p num_return_sequences bad_words_ids suppress_tokens
begin_suppress_tokens remove_invalid_values exponential_decay_length_penalty max_new_tokens use_fp32_logits
use_qk_norm_note freeze_vision use_image_start_end use_vision embed_init_std emb_init_std cache_implementation
gate_type rotary cast_model_dtype use_mscale _flash_attn_2_enabled tf_legacy_loss fused_mlp fused_qkv fused_dense
flash_attn flash_rotary use_torch_compile torch_compile group_limited_greedy attn_logit_softcapping
final_logit_softcapping order_of_interleaved_layers rotary_kwargs
"""
_HARMLESS = frozenset(_HARMLESS_TEXT.split())
_HARMLESS_PATTERNS = (
    r".*dropout.*",
    r"mtp_.*",
    r".*_pdrop",
    r".*(^|_)tokens?_?(id|ids|index|indices|idx|type_ids?)",
    r"(bos|eos|pad|sep|cls|mask|unk|boi|eoi|im|image|video|audio|vision)_.*(token|index|id|idx).*",
    r"(?!no_).*(?<!qk_)rope(?!_head_dim|_dim).*",
    r"rotary_.*|(yarn|mrope|alibi|ntk)_.*|.*_alibi",
    r".*(aux_loss|z_loss|loss_(coef|weight|type|factor|alpha)|_loss).*",
    r"router_(?!bias|dim|hidden|lora).*",
    r"output_router_.*",
    r".*_eps(ilon)?",
    r".*softcap(ping)?(_.*)?",
    r"(vision|visual|image|video|audio|speech|sound|vit|clip|img|mm|projector|perceiver|resampler|tts|talker|boa)_?.*",
    r"(use|has|add|with|freeze|enable)_(vision|visual|image|audio|mm|tts).*",
    r"(mup|init|initializer|initialization|generation|training|tokenizer|lora_(?!rank)|peft|rlhf)_.*",
    r".*_init(ializer)?(_.*)?",
    r"(min|max)_(pixels|frames|patches|images).*|.*_pixels",
    r".*(scoring|routed_scaling|logits_scaling).*",
)

_STRUCTURE = re.compile(
    r"moe|expert|mamba|ssm|conv|linear|lru|rwkv|recurr|attn_|attention_|_attn|_attention|layer_type|block|hybrid|"
    r"residual|index_|lora_rank|rank$|share|sparse|state|time_mix|time_step|decay|delta|kda|gla|retention|hyena|decoder|"
    r"encoder|cross|pool|_dim$|_size$|_ratio$|_factor$|factor_|_width$|intermediate|ffn|mlp|heads|_layers?$|layers_|"
    r"^n_|^d_|^num_|window|chunk|tie_|bias|gate|altup|laurel|per_layer|memory|latent|compress|mtp|parallel|norm|adapter|"
    r"multi_query|topk|top_k|depth|repeat|loop|causal|bidirectional|period|pattern|offset|(^|_)cla(_|$)|reuse|zero_|augment|ut_steps"
)
"""Names that speak of weights, layers or attention. One that no reader uses means another architecture."""

_PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in _HARMLESS_PATTERNS))


def is_harmless(key: str) -> bool:
    """Return whether a key changes neither weights, nor cache, nor FLOPs of the language model."""
    return key in _HARMLESS or _PATTERN.fullmatch(key) is not None


def is_structural(key: str) -> bool:
    """Return whether a key speaks of weights, layers or attention."""
    return not is_harmless(key) and _STRUCTURE.search(key) is not None


def is_off(value: object) -> bool:
    """Return whether a value states that its feature is absent: null, false, 0, empty, or a list of such values."""
    if isinstance(value, list):
        return all(map(is_off, value))
    return value is None or value is False or value in (0, "", {})


def keys_left(config: Mapping[str, Any], used: Collection[str]) -> list[str]:
    """Return the keys whose features are present, which are neither used nor harmless."""
    return [key for key, value in config.items() if key not in used and not is_off(value) and not is_harmless(key)]


def listed(keys: Iterable[str], limit: int = 6) -> str:
    """Return keys for a message, shortened."""
    names = [key if len(key) <= 60 else f"{key[:57]}..." for key in keys]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
