"""Which test exercises which command of README.md and docs/; `test_docs` holds it in step with them."""

CHAIN, HERE = "test_chain.py::test_", "test_docs.py::test_"
SET_UP = f"{HERE}the_environment_of_the_docs_is_the_one_that_make_and_the_tests_use"
MAKE = f"{HERE}make_runs_what_the_tests_run"
PUBLISH = "test_publish.py::test_publishing_a_finished_run_leaves_a_clone_that_anybody_can_check"
PUSH = "test_push.py::test_a_finished_run_is_pushed_with_a_card_of_its_manifests"
PUBLISHED = f"{HERE}a_published_result_is_checked_in_a_clone_without_its_data"
MEASURE = "test_measure_command.py::test_the_commands_of_the_docs_judge_what_darkroom_sample_drew"
AUDIT = "test_audit.py::test_the_commands_of_the_docs_show_scores_draw_a_sample_and_judge_its_labels"
CLUSTER = "test_cluster_chain.py::test_"
ADOPT = "test_adopt.py::test_who_adopts_a_published_result_reruns_only_what_they_change"
EXPORT = "test_format_lora_kohya.py::test_the_commands_of_the_docs_export_a_run"
EMA = "test_ema_command.py::test_the_commands_of_the_docs_write_pipelines_with_averages_of_other_widths"
WATCH = "test_chain_watch.py::test_legs_train_what_one_training_does_and_the_best_is_kept_beside_the_last"
REWRITE = "test_chain_rewrite.py::test_captions_are_rewritten_cached_trained_on_shown_and_checked"
DRAW = "test_draw_command.py::test_any_number_of_processes_draw_the_same_pictures"
EXAMPLES = f"{HERE}snakemake_plans_the_runs_of_the_examples"

# Command -> the test that exercises it, or RUN: this file runs it, with the
# others of its block, in a copy of the finished tiny project.
RUN = "run"
COMMANDS = {
    "make demo": MAKE,
    "make test": MAKE,
    "make test-interop": MAKE,
    "make test-slurm": MAKE,
    "make schema": MAKE,
    "make clean-results": "test_setup.py::test_clean_results_asks_on_a_terminal",
    "source .venv/bin/activate": SET_UP,
    "export SNAKEMAKE_PROFILE=profiles/local": SET_UP,
    "export SNAKEMAKE_PROFILE=profiles/slurm": "test_profiles.py::test_dvc_submits_the_same_jobs",
    "snakemake --profile slurm": f"{CLUSTER}every_stage_was_a_job_and_training_had_two_nodes",
    "snakemake --profile profiles/pbs": "test_pbs_slurm.py::test_a_part_of_the_workflow_runs_by_qsub",
    "darkroom cluster check": "test_cluster_check_slurm.py::test_the_profile_of_the_repository_fits_the_"
    "cluster_of_the_tests",
    "snakemake -n train --printshellcmds -R train_run": "test_adopt.py::test_torchrun_trains_with_"
    "the_command_of_the_rule",
    "dvc repro train-demo": "test_profiles.py::test_dvc_submits_the_same_jobs",
    "cp --recursive --no-clobber PUBLISHER/results .": ADOPT,
    "darkroom adopt demo": ADOPT,
    "darkroom publish --write": "test_dvc.py::test_publish_says_where_dvc_yaml_is_behind_and_writes_it",
    "dvc gc --workspace --force": "test_dvc_lock.py::test_gc_frees_what_is_no_longer_recorded_and_keeps_"
    "the_results",
    "snakemake -n": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "snakemake -n filter --config run=demo": "test_logger_chain.py::test_a_target_after_config_is_told_where_it_"
    "belongs",
    "snakemake -n --config run=longer": EXAMPLES,
    "snakemake -n --config run=cats": EXAMPLES,
    "snakemake autoencoder --config autoencoder=demo": "test_chain_autoencoder.py::test_an_autoencoder_is_trained_"
    "compared_and_used_by_a_run",
    "snakemake download": RUN,
    "rm results/datasets/demo/download/part-00000.*": RUN,
    "darkroom retry demo": "test_chain_retry.py::test_a_round_fetches_what_failed_and_makes_nothing_again",
    "darkroom trace URL": "test_withdraw.py::test_a_picture_is_traced_by_its_url_its_uid_and_its_bytes_as_fetched_"
    "and_as_stored",
    "darkroom withdraw URL": "test_withdraw.py::test_a_run_after_a_withdrawal_is_byte_for_byte_one_that_never_had_"
    "the_url",
    "snakemake filter": f"{CHAIN}one_stage_reruns_by_name",
    "snakemake filter -R filter_part": RUN,
    "snakemake score": RUN,
    "snakemake score -R score_part score_dataset": RUN,
    "snakemake recaption": RUN,
    "snakemake recaption -R recaption_part": RUN,
    "rm results/datasets/demo/recaption/part-00001.*": RUN,
    "snakemake rewrite": REWRITE,
    "snakemake rewrite -R rewrite_part": REWRITE,
    "snakemake bucket": RUN,
    "snakemake bucket -R bucket_part": RUN,
    "snakemake cache": RUN,
    "snakemake cache -R cache_part": RUN,
    "snakemake train": f"{CHAIN}a_training_option_reruns_train_and_what_follows_alone",
    "snakemake train -R train_run --set-resources train_run:mpi=torchrun train_run:tasks=2": (
        "test_train_launch.py::test_the_train_rule_runs_on_two_ranks_under_torchrun"
    ),
    "rm -r checkpoints/demo": RUN,
    "snakemake train -R train_run": RUN,
    "snakemake -n --config run=sd3-scratch-tiny,sd3-scratch-512-tiny": RUN,
    "snakemake watch": WATCH,
    'darkroom sample results/runs/judged/watch/best "a photo of a red circle" --out best': WATCH,
    "darkroom draw demo prompts.txt --out drawn --num-pictures 2": DRAW,
    "darkroom draw demo prompts.txt --out drawn --num-pictures 2 --share 2/8": DRAW,
    "snakemake draw": RUN,
    "snakemake draw -R draw_chunk": RUN,
    "snakemake measure": RUN,
    "snakemake measure -R measure_metric": RUN,
    "snakemake evaluate": RUN,
    "snakemake evaluate -R evaluate_run": RUN,
    "darkroom measure circles/model --metrics clip_score,frechet_clip_distance --prompts circles/pictures.csv"
    " --reference src/darkroom_demo/pictures --component clip=demo-clip": MEASURE,
    "darkroom measure FOLDER --metrics fid,kid --reference REAL --resize clean --component inception=WEIGHTS"
    " --out measured": MEASURE,
    "darkroom plan demo --calibrate": RUN,
    "darkroom plan demo --price-gpu-hour 2.50 --price-cpu-hour 0.04": RUN,
    "darkroom audit demo": AUDIT,
    "darkroom audit demo --column pwatermark --sample 200": AUDIT,
    "darkroom audit demo --column pwatermark --labels labels.csv --precision 0.95": AUDIT,
    "darkroom export sd14-lora --format single_file": EXPORT,
    "darkroom export sd14-lora --format lora_kohya --dtype float32 --out circles.safetensors": EXPORT,
    "darkroom export sd14-lora --format gguf": EXPORT,
    "darkroom push demo OWNER/NAME --public --license apache-2.0": PUSH,
    "darkroom ema averaged --width 0.12": EMA,
    "darkroom ema averaged --width 0.12 --step 1000 --check --out at-1000": EMA,
    "darkroom compare demo longer": "test_evaluate_stage.py::test_two_runs_are_compared_by_prompt_and_unequal_"
    "protocols_are_refused",
    "snakemake report": RUN,
    "snakemake report -R report_run": RUN,
    "dvc status": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "dvc repro": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "dvc repro filter-demo": f"{CHAIN}a_filter_threshold_reruns_the_selection_and_what_follows_but_no_download"
    "_and_no_scoring",
    "dvc repro --allow-missing --dry": PUBLISHED,
    "dvc pull": PUBLISHED,
    "darkroom verify demo": PUBLISHED,
    "dvc metrics show": PUBLISHED,
    "dvc remote add --default published FOLDER": PUBLISHED,
    "git add dvc.lock .dvc/config": PUBLISHED,
    "git add published": PUBLISHED,
    "darkroom report --all": "test_all_runs.py::test_every_run_with_results_is_a_row_and_the_others_are_named",
    "darkroom compare demo": "test_agreement.py::test_the_command_ends_with_0_or_1_and_says_what_is_missing",
    "darkroom publish demo": PUBLISH,
    "darkroom publish demo --sign ~/.ssh/id_ed25519": PUBLISH,
    "darkroom verify demo --signers FILE": PUBLISH,
    "darkroom reproduce demo": "test_publish.py::test_a_run_that_is_made_again_is_compared_metric_by_metric_and_"
    "leaves_what_was_published",
    'git commit -m "Results of demo"': PUBLISHED,
    "dvc push": PUBLISHED,
    "git diff --exit-code dvc.lock": f"{CHAIN}a_second_run_from_scratch_gives_the_same_bytes",
    "python -m darkroom.config.reference docs/configuration.md": f"{HERE}the_option_tables_are_written_again",
    'darkroom sample demo "a photo of a red circle" "a photo of two blue squares" --seed 7 --seed -1'
    " --out circles": RUN,
    'darkroom sample demo "a photo of a red circle" "a photo of a green cross"'
    " --baseline results/runs/demo/train/untrained --clip demo-clip --gif --out tuned": RUN,
    "python experiments/zero_terminal_snr.py --out FOLDER": "test_experiments.py::test_zero_terminal_snr_"
    "prints_the_table_of_its_page_and_writes_its_picture",
    "python experiments/longer_context.py --out FOLDER": "test_experiments.py::test_longer_context_prints_the_"
    "table_of_its_page_and_step_0_is_the_base_model",
    "python experiments/dreambooth.py --out FOLDER": "test_experiments.py::test_dreambooth_learns_from_the_"
    "class_pictures_that_darkroom_sample_drew",
    "python experiments/brightness.py --out FOLDER": "test_experiments.py::test_brightness_counts_the_shades_"
    "that_one_caption_was_told_of",
    "python experiments/phases.py --out FOLDER": "test_experiments.py::test_phases_begin_where_the_one_before_"
    "ended_and_not_in_noise",
    "darkroom demo serve": f"{HERE}the_demo_world_can_be_looked_at",
    "darkroom demo train-components --out FOLDER": f"{HERE}components_are_trained_into_the_folder_that_is_named",
}
