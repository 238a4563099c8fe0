"""vLLM's arguments that have no bearing on the GPU's memory, as they stand in 0.8.5, 0.11.0 and 0.33.0."""

from kvplan.runtime.flags.argument import names

SILENT = names(
    # The server: vllm/entrypoints/common/cli_args.py.
    "host port grpc_port uds api_key served_model_name root_path middleware allowed_origins allowed_methods "
    "allowed_headers ssl_keyfile ssl_certfile ssl_ca_certs ssl_cert_reqs ssl_ciphers uvicorn_log_level "
    "disable_access_log_for_endpoints chat_template chat_template_content_format default_chat_template_kwargs "
    "reasoning_effort_map response_role tool_call_parser tool_parser_plugin tool_strict_level tool_server max_log_len "
    "sse_keep_alive_interval cohere_format anthropic_disabled_thinking_effort fingerprint_mode fingerprint_value "
    "data_parallel_supervisor_port dp_supervisor_probe_interval_s dp_supervisor_probe_timeout_s "
    "dp_supervisor_probe_failure_threshold h11_max_incomplete_event_size h11_max_header_count lora_modules "
    "api_server_count shutdown_timeout "
    # The model, the tokenizer and loading; what is read of the config is in the model's own description.
    "model model_tag runner task convert tokenizer tokenizer_mode tokenizer_revision seed revision code_revision "
    "hf_token hf_config_path config_format generation_config override_generation_config allowed_local_media_path "
    "allowed_media_domains logprobs_mode max_logprobs pooler_config override_pooler_config model_impl "
    "logits_processors logits_processor_pattern io_processor_plugin renderer_num_workers sleep_mode_backend "
    "sleep_preserve_parameter_names load_format download_dir safetensors_load_strategy "
    "safetensors_prefetch_num_threads safetensors_prefetch_block_size model_loader_extra_config ignore_patterns "
    "use_tqdm_on_load pt_load_map_location max_parallel_loading_workers "
    # Processes, nodes, scheduling.
    "distributed_executor_backend master_addr master_port node_rank distributed_timeout_seconds "
    "cpu_distributed_timeout_seconds numa_bind_nodes numa_bind_cpus device_ids device worker_cls "
    "worker_extension_cls data_parallel_rpc_port dp_sync_interval fault_tolerance_config scheduling_policy "
    "scheduler_cls max_num_queued_reqs max_num_queued_tokens stream_interval prefill_schedule_interval "
    "long_prefill_token_threshold max_num_partial_prefills max_long_partial_prefills scheduler_delay_factor "
    "preemption_mode num_scheduler_steps expert_placement_strategy eplb_window_size eplb_step_interval "
    # Parsers, logs, measurements.
    "reasoning_parser reasoning_parser_plugin reasoning_config structured_outputs_config guided_decoding_backend "
    "logging_config log_level log_config_file show_hidden_metrics_for_version otlp_traces_endpoint "
    "collect_detailed_traces per_request_spec_decode_metrics kv_cache_metrics_sample custom_histogram_buckets "
    "jit_monitor_mode profiler_config watchdog_config kv_events_config prefix_caching_hash_algo "
    # Memory of the host.
    "swap_space max_cpu_loras kv_offloading_size kv_offloading_backend mm_processor_cache_gb mm_processor_cache_type "
    "rope_theta max_seq_len_to_capture tokenizer_pool_size tokenizer_pool_type tokenizer_pool_extra_config "
    "mamba_cache_philox_rounds dcp_comm_backend cp_kv_cache_interleave_size dcp_kv_cache_interleave_size "
    "mm_hasher_algorithm mm_shm_cache_max_object_size_mb media_io_kwargs mm_tensor_ipc "
    # The parser's own.
    "subparser dispatch_function "
    # Short forms.
    "r dpp asc"
)

SILENT_BARE = names(
    "allow_credentials trust_request_chat_template trust_request_mm_kwargs return_tokens_as_token_ids "
    "enable_auto_tool_choice exclude_tools_when_tool_choice_none enable_prompt_tokens_details "
    "enable_per_request_metrics enable_server_load_tracking enable_force_include_usage enable_tokenizer_info_endpoint "
    "enable_log_outputs enable_log_deltas cohere_is_reasoning_model log_error_stack tokens_only enable_scale_out "
    "disable_uvicorn_access_log enable_ssl_refresh enable_request_id_headers disable_fastapi_docs "
    "enable_offline_docs headless grpc disable_frontend_multiprocessing disable_log_requests enable_log_requests "
    "disable_log_stats aggregate_engine_logging fail_on_environ_validation trust_remote_code "
    "allow_deprecated_quantization enable_trace_replay disable_cascade_attn skip_tokenizer_init enable_prompt_embeds "
    "enable_sleep_mode enable_cumem_allocator numa_bind "
    "data_parallel_multi_port_external_lb enable_ep_weight_filter disable_nccl_for_dp_synchronization "
    "ray_workers_use_nsight disable_custom_all_reduce enable_fault_tolerance kv_cache_metrics cudagraph_metrics "
    "enable_layerwise_nvtx_tracing enable_mfu_metrics enable_logging_iteration_details jit_monitor_verbose "
    "enable_reasoning disable_chunked_mm_input scheduler_reserve_full_isl "
    "long_prefill_token_threshold_adaptive interleave_mm_strings enable_flashinfer_autotune eplb_log_balancedness "
    "return_sampling_mask use_fp64_gumbel disable_async_output_proc disable_mm_preprocessor_cache "
    "use_v2_block_manager calculate_kv_scales engine_use_ray worker_use_ray "
    "multi_step_stream_outputs enable_mamba_cache_stochastic_rounding dpm"
)

SILENT_MANY = names(
    "served_model_name lora_modules api_key middleware allowed_media_domains logits_processors ignore_patterns "
    "reasoning_effort_map numa_bind_nodes numa_bind_cpus collect_detailed_traces sleep_preserve_parameter_names"
)

DEFAULTS = {
    "lora_extra_vocab_size": 256, "max_prompt_adapters": 1, "spec_decoding_acceptance_method": "rejection_sampler",
    "typical_acceptance_sampler_posterior_threshold": 0.09, "offload_num_in_group": 1, "offload_prefetch_step": 1,
}  # fmt: skip
"""Of what is neither read nor silent: releases that print every argument print these when nothing was set."""

GONE = names(
    "device eplb_step_interval eplb_window_size guided_decoding_backend logits_processor_pattern "
    "max_long_partial_prefills max_num_partial_prefills max_seq_len_to_capture num_scheduler_steps "
    "override_pooler_config preemption_mode rope_theta rope_scaling scheduler_delay_factor swap_space task "
    "tokenizer_pool_extra_config tokenizer_pool_size tokenizer_pool_type calculate_kv_scales "
    "disable_async_output_proc disable_frontend_multiprocessing disable_mm_preprocessor_cache enable_reasoning "
    "engine_use_ray eplb_log_balancedness multi_step_stream_outputs use_v2_block_manager worker_use_ray "
    "cuda_graph_sizes speculative_model num_speculative_tokens num_lookahead_slots enable_prompt_adapter "
    "max_prompt_adapters max_prompt_adapter_token lora_extra_vocab_size long_lora_scaling_factors "
    "spec_decoding_acceptance_method typical_acceptance_sampler_posterior_threshold "
    "typical_acceptance_sampler_posterior_alpha speculative_max_model_len speculative_disable_by_batch_size "
    "speculative_draft_tensor_parallel_size speculative_disable_mqa_scorer speculative_model_quantization "
    "speculative_draft_acceptance_method ngram_prompt_lookup_max ngram_prompt_lookup_min qlora_adapter_name_or_path "
    "full_cuda_graph"
)
"""Arguments of older releases at which the parser of 0.33 ends: it has none of them, nor one that any begins."""
