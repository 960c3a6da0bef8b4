"""What nanoGPT, nanochat, torchtitan and transformers call what minids calls otherwise, for those who type it out of habit."""

from collections.abc import Iterable

SETTINGS = {
    ours: theirs.split()
    for ours, theirs in {
        "learning_rate": "lr max_lr matrix_lr",
        "steps": "max_iters max_steps num_iterations iterations iters training_steps num_steps max_train_steps train_steps",
        "context_length": "block_size seq_len max_seq_len max_sequence_length sequence_length n_ctx ctx",
        "batch_size": "device_batch_size micro_batch_size local_batch_size per_device_train_batch_size train_batch_size",
        "gradient_accumulation_steps": "grad_accum grad_accum_steps gradient_accumulation accumulate_grad_batches",
        "warmup_steps": "warmup_iters warmup num_warmup_steps lr_warmup_steps",
        "clip_norm": "grad_clip max_grad_norm max_norm gradient_clipping",
        "beta1": "adam_beta1",
        "beta2": "adam_beta2",
        "adam_eps": "adam_epsilon eps",
        "optimizer": "optim",
        "eval_every": "eval_interval eval_steps eval_freq val_interval",
        "eval_tokens": "eval_iters max_eval_tokens val_tokens",
        "log_every": "log_interval logging_steps log_freq",
        "save_every": "save_interval save_steps checkpoint_interval checkpoint_every",
        "sample_every": "sample_interval",
        "workers": "threads num_threads num_workers n_threads nproc nproc_per_node",
        "validation_share": "val_split validation_split val_fraction test_size",
        "bpe_vocab_size": "vocab_size",
        "tokenizer": "tok tokenizer_type",
        "out": "out_dir output_dir save_dir dump_folder run_dir logdir",
        "data": "dataset data_dir dataset_path train_file input input_file corpus",
        "preset": "config model_name flavor size model_size",
        "resume": "resume_from_checkpoint init_from continue load_checkpoint",
        "num_hidden_layers": "n_layer n_layers num_layers layers depth",
        "num_attention_heads": "n_head n_heads num_heads heads",
        "hidden_size": "n_embd d_model dim model_dim embed_dim n_embed emb_dim",
        "intermediate_size": "d_ff ffn_dim inter_dim hidden_dim",
        "moe_intermediate_size": "moe_inter_dim expert_dim",
        "n_routed_experts": "num_experts n_experts num_local_experts experts",
        "n_shared_experts": "num_shared_experts",
        "num_experts_per_tok": "n_activated_experts moe_top_k experts_per_token top_k_experts",
        "num_nextn_predict_layers": "n_mtp mtp_depth num_mtp_layers num_mtp_modules",
        "max_position_embeddings": "max_seq_length n_positions",
        "num_key_value_heads": "n_kv_head n_kv_heads num_kv_heads",
        "prompt": "start text question",
        "prompt_file": "file prompt_path",
        "max_new_tokens": "max_tokens max_length n_predict num_tokens length",
        "temperature": "temp",
        "num_samples": "num_return_sequences n samples",
        "repetition_penalty": "repeat_penalty rep_pen",
        "stop": "stop_string stop_strings stop_sequences stop_words reverse_prompt eos",
        "draft_tokens": "num_speculative_tokens n_draft num_assistant_tokens",
        "checkpoint": "model model_path ckpt ckpt_path checkpoint_path model_dir model_tag path",
        "seed": "random_seed manual_seed",
        "stream": "offload low_memory",
    }.items()
}
COMMANDS = {
    "generate": ["sample", "infer", "inference", "complete", "completion"],
    "evaluate": ["eval", "validate", "test", "bpb"],
    "chat": ["chat_cli", "repl"],
    "train": ["pretrain", "fit", "base_train", "run"],
    "sft": ["finetune", "fine-tune", "chat_sft"],
    "reward-model": ["rm", "reward", "train_rm", "reward_trainer"],
    "grpo": ["rl", "chat_rl"],
    "data": ["dataset", "prepare", "download"],
    "doctor": ["env", "version", "report"],
    "info": ["summary", "params", "describe"],
    "bench": ["benchmark", "speed"],
}
NO_NEED = {
    name: "a checkpoint is a Hugging Face folder already, which transformers opens; there is nothing to convert"
    for name in ("convert", "save", "to_hf")
}


def perhaps(name: str, names: Iterable[str], others: dict[str, list[str]]) -> str:
    """ "perhaps you meant --steps? " for "--max-iters" where --steps is among ``names``; nothing where none is known."""
    said = _plain(name)
    for ours, theirs in others.items():
        if said in map(_plain, theirs):
            for candidate in names:
                if _plain(candidate) == _plain(ours):
                    return f"perhaps you meant {candidate}? "
    return ""


def _plain(name: str) -> str:
    """``--model.n-layer`` → ``n_layer``."""
    return name.lstrip("-").replace("-", "_").rpartition(".")[2].lower()
