"""SGLang's arguments that have no bearing on the GPU's memory, as they stand in 0.4.6 to 0.5.23."""

from kvplan.runtime.flags.argument import names

SILENT = names(
    # The server, its logs and measurements.
    "model_path model host port fastapi_root_path grpc_port grpc_response_timeout_secs sidecar sidecar_args warmups "
    "http2_max_concurrent_streams http2_initial_connection_window_size ssl_keyfile ssl_certfile ssl_ca_certs "
    "ssl_keyfile_password api_key admin_api_key served_model_name weight_version chat_template hf_chat_template_name "
    "completion_template file_storage_path reasoning_parser default_chat_template_kwargs tool_call_parser tool_server "
    "sampling_defaults asr_max_buffer_seconds asr_max_concurrent_sessions preferred_sampling_params stream_interval "
    "batch_notify_size constrained_json_whitespace_pattern constrained_json_max_whitespace_cnt "
    "dynamic_batch_tokenizer_batch_size dynamic_batch_tokenizer_batch_timeout tokenizer_path tokenizer_mode "
    "tokenizer_backend tokenizer_worker_num detokenizer_worker_num log_level log_level_http log_requests_level "
    "log_requests_format log_requests_target uvicorn_access_log_exclude_prefixes crash_dump_folder "
    "smg_http_sidecar_port load_snapshot_publish_interval tokenizer_metrics_custom_labels_header "
    "tokenizer_metrics_allowed_custom_labels extra_metric_labels bucket_time_to_first_token "
    "bucket_inter_token_latency bucket_e2e_request_latency collect_tokens_histogram prompt_tokens_buckets "
    "generation_tokens_buckets gc_warning_threshold_secs decode_log_interval kv_events_config load_publish_endpoint "
    "forward_pass_metrics_worker_id forward_pass_metrics_ipc_name trace_modules otlp_traces_endpoint "
    "oltp_traces_endpoint otlp_service_name export_metrics_to_file_dir stat_loggers "
    "debug_tensor_dump_output_folder debug_tensor_dump_layers debug_tensor_dump_input_file msprobe_dump_config "
    # The model and loading.
    "load_format model_loader_extra_config revision model_impl model_config_parser quantization_param_path "
    "modelopt_checkpoint_restore_path modelopt_checkpoint_save_path modelopt_export_path custom_weight_loader "
    "startup_weight_load_mode weight_loader_prefetch_num_threads remote_instance_weight_loader_seed_instance_ip "
    "remote_instance_weight_loader_seed_instance_service_port remote_instance_weight_loader_send_weights_group_ports "
    "remote_instance_weight_loader_backend engine_info_bootstrap_port modelexpress_config download_dir model_checksum "
    "decrypted_config_file decrypted_draft_config_file weight_cache_mode weight_cache_socket weight_cache_timeout "
    "speculative_draft_model_revision speculative_draft_load_format "
    # Devices, processes, scheduling.
    "device base_gpu_id gpu_id_step random_seed watchdog_timeout soft_watchdog_timeout custom_sigquit_handler "
    "numa_node gc_threshold nccl_port dist_timeout dist_init_addr gated_launch_port nnodes node_rank "
    "load_balance_method schedule_policy schedule_conservativeness priority_scheduling_preemption_threshold "
    "default_priority_value retraction_policy max_queued_requests prefill_max_requests "
    "num_continuous_decode_steps scheduler_recv_interval prefill_decode_interval prefill_decode_interval_min_bs "
    "prefill_delayer_max_delay_passes prefill_delayer_token_usage_low_watermark "
    "prefill_delayer_forward_passes_buckets prefill_delayer_wait_seconds_buckets prefill_delayer_queue_min_ratio "
    "prefill_delayer_max_delay_ms min_free_slots_delay radix_eviction_policy radix_eviction_policy_config "
    "sampling_backend grammar_backend lora_eviction_policy lora_drain_wait_threshold "
    "max_loaded_loras speculative_accept_threshold_single speculative_accept_threshold_acc "
    "speculative_ngram_min_bfs_breadth speculative_ngram_max_bfs_breadth speculative_ngram_match_type "
    "speculative_ngram_max_trie_depth speculative_ngram_capacity speculative_ngram_min_match_window_size "
    "speculative_ngram_max_match_window_size speculative_ngram_branch_length spec_trace_dir "
    "disaggregation_bootstrap_port disaggregation_ib_device encoder_urls encoder_bootstrap_port encoder_register_urls "
    "eplb_algorithm eplb_rebalance_num_iterations eplb_rebalance_layers_per_chunk "
    "eplb_min_rebalancing_utilization_threshold ep_dispatch_algorithm init_expert_location "
    "expert_balancedness_report_mode tbo_token_distribution_threshold triton_attention_num_kv_splits "
    "allowed_media_domains media_url_max_file_size_mb image_processor_backend mm_processor_worker_num "
    "mm_io_worker_num mm_preprocess_cache_size_mb keep_mm_feature_on_device ple_offload_dir "
    # Memory of the host.
    "hicache_ratio hicache_size hicache_host_memory_fraction hicache_host_memory_mode hicache_write_policy "
    "hicache_io_backend hicache_mem_layout hicache_storage_backend hicache_storage_prefetch_policy "
    "hicache_storage_backend_extra_config hicache_storage_prefetch_retry_poll_interval "
    "hicache_storage_prefetch_retry_max_attempts lmcache_config_file flexkv_config_file "
    # Kernels that are picked by themselves, and sizes that follow from others when a log prints them.
    "fp8_gemm_runner_backend fp8_gemm_backend fp4_gemm_runner_backend fp4_gemm_backend bf16_gemm_backend "
    "piecewise_cuda_graph_compiler piecewise_cuda_graph_max_tokens piecewise_cuda_graph_tokens "
    "nsa_prefill_cp_mode mm_max_concurrent_calls mm_per_request_timeout additional_ports nccl_init_addr "
    "grpc_http_sidecar_port flashinfer_autotune_skip_ops dcp_comm_backend mooncake_ib_device "
    "mamba_cache_philox_rounds"
)

SILENT_BARE = names(
    "trust_remote_code skip_tokenizer_init skip_server_warmup enable_http2 enable_ssl_refresh smg_grpc_mode grpc_mode "
    "trust_request_chat_template enable_cache_report return_input_ids return_output_ids strip_thinking_cache "
    "enable_strict_thinking allow_auto_truncate stream_response_default_include_usage incremental_streaming_output "
    "stream_output enable_streaming_session enable_response_store constrained_json_disable_any_whitespace "
    "enable_dynamic_batch_tokenizer enable_tokenizer_batch_encode disable_tokenizer_batch_decode "
    "enable_http_worker_reuseport log_requests show_time_cost enable_metrics enable_mfu_metrics "
    "enable_metrics_for_all_schedulers enable_request_time_stats_logging enable_forward_pass_metrics enable_trace "
    "export_metrics_to_file weight_loader_disable_mmap weight_loader_prefetch_checkpoints "
    "weight_loader_drop_cache_after_load delete_ckpt_after_loading checkpoint_engine_wait_weights_before_ready "
    "sleep_on_idle use_ray mlx_enable_sampling enable_custom_logit_processor disable_outlines_disk_cache "
    "enable_priority_scheduling disable_priority_preemption abort_on_priority_when_disabled "
    "schedule_low_priority_values_first enable_prefill_delayer enable_mixed_chunk enable_p2p_check "
    "disable_custom_all_reduce enable_layerwise_nvtx_marker pre_warm_nccl disable_flashinfer_autotune "
    "disable_fast_image_processor disable_cuda_graph_padding enable_profile_cuda_graph enable_cudagraph_gc "
    "enable_hierarchical_cache enable_lmcache enable_flexkv enable_session_radix_cache lora_strict_loading "
    "disable_chunked_prefix_cache enable_hicache enable_mamba_cache_stochastic_rounding trust_mm_content_hashes "
    "enable_tf32_matmul enable_deterministic_inference enable_broadcast_mm_inputs_process disable_hicache_numa_detect"
)

DEFAULTS = {
    "max_prefill_tokens": 16384, "is_embedding": False, "json_model_override_args": "{}", "torch_compile_max_bs": 32,
    "moe_dp_size": 1, "attn_cp_size": 1, "dwdp_size": 1, "c128_page_size": 16, "moe_a2a_backend": "none",
    "offload_group_size": -1, "offload_num_in_group": 1, "offload_prefetch_step": 1, "offload_mode": "cpu",
    "disaggregation_mode": "null", "disaggregation_transfer_backend": "mooncake", "num_reserved_decode_tokens": 512,
    "decoupled_spec_role": "null", "disaggregation_decode_allocation_policy": "early", "mamba_backend": "triton",
    "disaggregation_decode_polling_interval": 1, "disaggregation_decode_host_receive_threshold": 1.0,
    "encoder_transfer_backend": "zmq_to_scheduler", "sm_group_num": 8, "sampling_mask_max_tokens": 4096,
    "dsa_topk_backend": "sgl-kernel", "speculative_dsa_topk_backend": "sgl-kernel", "mamba_max_states_per_path": -1,
    "mamba_track_interval": 256, "linear_attn_backend": "triton", "linear_replayssm_cache_len": 16,
    "deepep_v2_mode": "direct", "flashinfer_mxfp4_moe_precision": "default", "fuseep_mode": 2,
    "elastic_ep_scale_timeout": 600, "kt_method": "AMXINT4", "kt_threadpool_count": 2, "ple_offload_backend": "pinned",
    "dllm_fdfo": True, "max_lora_chunk_size": 16, "unified_cache_external_linker_backend": "mooncake",
    "mm_global_cache_backend": "mooncake", "kv_canary": "none", "kv_canary_real_data": "none",
    "speculative_domino_candidate_pool_size": 2048, "speculative_attention_mode": "prefill",
    "speculative_ngram_external_corpus_max_tokens": 10000000, "lora_backend": "csgmv",
    "ds_heavy_channel_num": 32, "ds_heavy_token_num": 256, "ds_heavy_channel_type": "qk",
    "ds_sparse_decode_threshold": 4096, "mamba_scheduler_strategy": "no_buffer",
    "expert_distribution_recorder_buffer_size": 1000, "disaggregation_prefill_pp": 1,
}  # fmt: skip
"""Of what is neither read nor silent: a log prints these when nothing was set."""

SILENT_MANY = names(
    "custom_weight_loader numa_node allowed_media_domains encoder_urls encoder_register_urls "
    "bucket_time_to_first_token bucket_inter_token_latency bucket_e2e_request_latency prompt_tokens_buckets "
    "generation_tokens_buckets debug_tensor_dump_layers log_requests_target sidecar_args "
    "uvicorn_access_log_exclude_prefixes prefill_delayer_forward_passes_buckets prefill_delayer_wait_seconds_buckets"
)
