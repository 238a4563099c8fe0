"""TensorRT-LLM's arguments that have no bearing on the GPU's memory, as they stand in 1.0 to 1.2."""

from kvplan.runtime.flags.argument import names

SILENT = names(
    "model tokenizer custom_tokenizer host port custom_module_dirs log_level gpus_per_node num_postprocess_workers "
    "revision tokenizer_revision tokenizer_mode reasoning_parser tool_parser metadata_server_config_file server_role "
    "otlp_traces_endpoint disagg_cluster_uri media_io_kwargs chat_template served_model_name "
    "postprocess_tokenizer_dir load_format guided_decoding_backend iter_stats_max_iterations "
    "request_stats_max_iterations perf_metrics_max_requests max_stats_len orchestrator_type checkpoint_format "
    "stream_interval sampler_type batch_wait_timeout_ms batch_wait_timeout_iters batch_wait_max_tokens_ratio "
    "garbage_collection_gen0_threshold allreduce_strategy ray_worker_extension_cls workspace "
    "scheduler_config.capacity_scheduler_policy scheduler_config.context_chunking_policy "
    "scheduler_config.dynamic_batch_config.enable_batch_size_tuning "
    "scheduler_config.dynamic_batch_config.enable_max_num_tokens_tuning "
    "scheduler_config.dynamic_batch_config.dynamic_batch_moving_average_window "
    "attention_dp_config.timeout_iters attention_dp_config.batching_wait_iters moe_config.backend "
    "kv_cache_config.host_cache_size kv_cache_config.event_buffer_max_size kv_cache_config.onboard_blocks "
    "kv_cache_config.secondary_offload_min_priority kv_cache_config.attention_dp_events_gather_period_ms "
    "speculative_config.max_concurrency speculative_config.acceptance_window "
    "speculative_config.acceptance_length_threshold speculative_config.relaxed_topk "
    "speculative_config.relaxed_delta speculative_config.max_matching_ngram_size "
    "speculative_config.eagle3_layers_to_capture"
)

SILENT_BARE = names(
    "trust_remote_code fail_fast_on_attention_window_too_large enable_chunked_prefill skip_tokenizer_init "
    "print_iter_log enable_iter_perf_stats enable_iter_req_stats return_perf_metrics enable_autotuner "
    "enable_layerwise_nvtx_marker attention_dp_config.enable_balance kv_cache_config.enable_partial_reuse "
    "kv_cache_config.copy_on_partial_reuse cuda_graph_config.enable_padding cuda_graph_padding_enabled "
    "speculative_config.eagle3_one_model speculative_config.use_relaxed_acceptance_for_thinking "
    "speculative_config.is_keep_all speculative_config.is_use_oldest speculative_config.is_public_pool "
    "disable_flashinfer_sampling enable_tqdm"
)

DEFAULTS = {
    "backend": "pytorch", "max_beam_width": 1, "context_parallel_size": 1, "cp_size": 1, "max_input_len": 1024,
    "moe_cluster_parallel_size": -1, "moe_tensor_parallel_size": -1, "attn_backend": "TRTLLM",
}  # fmt: skip
"""Of what is neither read nor silent: these say nothing."""
