"""llama-server's arguments that have no bearing on the GPU's memory, as they stand in b11434."""

from kvplan.runtime.flags.argument import names

SILENT = names(
    # The model, processors, logs.
    "model m model_url mu hf_repo hf hfr hf_file hff hf_token hft docker_repo dr threads t threads_batch tb cpu_mask C "
    "cpu_range Cr cpu_strict prio poll cpu_mask_batch Cb cpu_range_batch Crb cpu_strict_batch prio_batch poll_batch "
    "predict n n_predict keep numa load_mode lm lazy_mode lzm defrag_thold dt main_gpu mg log_file log_colors "
    "verbosity lv log_verbosity "
    # Sampling.
    "samplers seed s sampler_seq sampling_seq temp temperature top_k top_p min_p top_nsigma top_n_sigma "
    "xtc_probability xtc_threshold typical typical_p repeat_last_n repeat_penalty presence_penalty "
    "frequency_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breaker "
    "adaptive_target adaptive_decay dynatemp_range dynatemp_exp mirostat mirostat_lr mirostat_ent logit_bias l "
    "grammar grammar_file json_schema j json_schema_file jf "
    # RoPE: it changes positions, not sizes.
    "rope_scaling rope_scale rope_freq_base rope_freq_scale yarn_orig_ctx yarn_ext_factor yarn_attn_factor "
    "yarn_beta_slow yarn_beta_fast "
    # The server.
    "host port path api_prefix api_key api_key_file ssl_key_file ssl_cert_file chat_template_kwargs timeout to "
    "sse_ping_interval threads_http cache_reuse slot_save_path media_path models_dir models_preset models_max alias a "
    "tags embd_normalize cors_origins cors_methods cors_headers ui_config webui_config ui_config_file "
    "webui_config_file tools tools_runtime mcp_servers_config mcp_servers_json reasoning_format reasoning rea "
    "reasoning_effort reasoning_budget reasoning_budget_message chat_template chat_template_file "
    "slot_prompt_similarity sps sleep_idle_seconds log_prompts_dir pooling reverse_prompt r lookup_cache_static lcs "
    "lookup_cache_dynamic lcd video_fps video_timestamp_interval video_ffmpeg_dir "
    # Memory of the host.
    "ctx_checkpoints ctxcp swa_checkpoints checkpoint_min_step cms cache_ram cram "
    # The drafts' processors.
    "spec_draft_threads td threads_draft spec_draft_threads_batch tbd threads_batch_draft spec_draft_n_min draft_min "
    "draft_n_min spec_draft_p_split draft_p_split spec_draft_p_min draft_p_min spec_draft_sampling spec_synth_len "
    "spec_synth_rates spec_ngram_mod_n_min spec_ngram_mod_n_max spec_ngram_mod_n_match spec_ngram_simple_size_n "
    "spec_ngram_simple_size_m spec_ngram_simple_min_hits spec_ngram_map_k_size_n spec_ngram_map_k_size_m "
    "spec_ngram_map_k_min_hits spec_ngram_map_k4v_size_n spec_ngram_map_k4v_size_m spec_ngram_map_k4v_min_hits "
    "spec_draft_cpu_mask Cd cpu_mask_draft spec_draft_cpu_range Crd cpu_range_draft spec_draft_cpu_strict "
    "cpu_strict_draft spec_draft_prio prio_draft spec_draft_poll poll_draft"
)

SILENT_BARE = names(
    "perf no_perf escape e no_escape check_tensors mlock no_mmap mmap direct_io dio no_direct_io ndio offline "
    "log_disable log_jsonl no_log_jsonl verbose v log_verbose log_prefix no_log_prefix log_timestamps "
    "no_log_timestamps ignore_eos special sp warmup no_warmup spm_infill cont_batching cb no_cont_batching nocb "
    "context_shift no_context_shift reuse_port cors_credentials no_cors_credentials ui_mcp_proxy webui_mcp_proxy "
    "no_ui_mcp_proxy no_webui_mcp_proxy agent ag no_agent no_ag ui webui no_ui no_webui embedding embeddings rerank "
    "reranking cache_prompt no_cache_prompt metrics props slots no_slots models_autoload no_models_autoload jinja "
    "no_jinja reasoning_preserve no_reasoning_preserve skip_chat_parsing no_skip_chat_parsing prefill_assistant "
    "no_prefill_assistant lora_init_without_apply cache_idle_slots no_cache_idle_slots spec_draft_backend_sampling "
    "no_spec_draft_backend_sampling no_host repack no_repack nr backend_sampling bs mmproj_offload "
    "completion_bash mmproj_auto no_mmproj no_mmproj_auto"
)
