"""What `test_tampering.py` changes behind darkroom's back, and what `darkroom verify` says of each."""

from tampering import (
    DATASET,
    MODEL,
    RUN,
    Tamper,
    a_device,
    a_manifest_that_leads_out,
    a_socket,
    add,
    both,
    copied,
    cut,
    edited,
    flip,
    flip_component,
    forged,
    in_cache,
    in_table,
    in_text,
    in_yaml,
    link,
    lock_one,
    other_rows,
    pipe,
    put,
    refit_lock,
    remove,
    swap,
    twice_a_key,
    with_all_copies,
    without_a_part,
)

SCORE = edited(f"{RUN}/evaluate/metrics.json", lambda body: body["trained"].update(clip_score=99.0))
CAPTION = in_table(f"{DATASET}/recaption/part-00000.parquet", "caption_long", "a photo of nothing")
WEIGHTS = flip(f"{MODEL}/transformer/diffusion_pytorch_model.safetensors")
TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    # Files of every kind, changed.
    "a row of the list": (flip(f"{DATASET}/urls.parquet", 40), r"urls\.parquet: changed since"),
    "a row of the list that the demo leaves": (flip(f"{DATASET}/list.parquet", 40), r"list\.parquet: "),
    "the truth that captions are judged by": (
        in_table(f"{DATASET}/truth.parquet", "kind", "x"),
        r"truth\.parquet: is not what the source lists now: row 0 differs",
    ),
    "a picture": (flip(f"{DATASET}/download/part-00000.tar", 700), r"part-00000\.tar: changed since"),
    "the end of a tar": (cut(f"{DATASET}/download/part-00001.tar"), r"part-00001\.tar: changed since"),
    "a download's table": (
        in_table(f"{DATASET}/download/part-00000.parquet", "status", "ok"),
        r"download/part-00000\.parquet: changed since",
    ),
    "a score": (
        flip(f"{DATASET}/score/part-00000.size.parquet", 50),
        r"part-00000\.size\.parquet: changed since",
    ),
    "a selection": (
        flip(f"{DATASET}/filter/part-00001.parquet", 50),
        r"filter/part-00001\.parquet: changed since",
    ),
    "the funnel": (in_text(f"{DATASET}/filter/funnel.csv", "1", "2"), r"funnel\.csv: changed since"),
    "a caption": (CAPTION, r"recaption/part-00000\.parquet: changed since"),
    "a crop": (
        in_cache(lambda name: flip(name, 50), "bucket/part-00000.parquet"),
        r"bucket/part-00000\.parquet",
    ),
    "the buckets": (in_cache(flip, "bucket/buckets.json"), r"buckets\.json: changed since"),
    "latents": (in_cache(flip, "cache/part-00000.safetensors"), r"cache/part-00000\.safetensors: changed"),
    "the empty caption's embedding": (
        in_cache(flip, "cache/null.safetensors"),
        r"null\.safetensors: changed",
    ),
    "weights": (WEIGHTS, r"train/model: changed since"),
    "code in the model": (flip(f"{MODEL}/pipeline.py"), r"train/model: changed since"),
    "the untrained model": (
        flip(f"{RUN}/train/untrained/transformer/config.json"),
        r"train/untrained: changed",
    ),
    "a sheet of samples": (flip(f"{RUN}/train/samples/step-00000006.png"), r"train/samples: changed"),
    "the loss": (in_text(f"{RUN}/train/loss.csv", "1", "0"), r"loss\.csv: changed since"),
    "the history": (flip(f"{RUN}/train/history.parquet", 50), r"history\.parquet: changed since"),
    "a prompt": (flip(f"{RUN}/draw/prompts.jsonl", 20), r"prompts\.jsonl: changed since"),
    "a drawn picture": (
        flip(f"{RUN}/draw/pictures/trained/chunk-00000.tar", 700),
        r"pictures/trained/chunk-00000\.tar: changed since",
    ),
    "a metric's numbers": (
        flip(f"{RUN}/measure/clip_score.parquet", 50),
        r"clip_score\.parquet: changed since",
    ),
    "a metric's protocol": (
        edited(f"{RUN}/measure/geneval.protocol.json", lambda body: body["protocol"].update(threshold=0.1)),
        r"geneval\.protocol\.json: changed since",
    ),
    "a published score": (SCORE, r"evaluate/metrics\.json: changed since"),
    "scores by prompt": (
        flip(f"{RUN}/evaluate/prompts.parquet", 50),
        r"evaluate/prompts\.parquet: changed since",
    ),
    "a number of the report": (
        in_text(f"{RUN}/report/report.html", "training steps", "long training steps"),
        r"report\.html: changed since",
    ),
    "words among the report's times": (
        in_text(f"{RUN}/report/report.html", "of jobs, all stages", "of a GPU, all stages"),
        r"report\.html: has 'GPU' among its times",
    ),
    "a script among the report's times": (
        in_text(f"{RUN}/report/report.html", "<!-- measured -->", "<!-- measured --><script></script>"),
        r"report\.html: has .* among its times",
    ),
    "the end of the report": (cut(f"{RUN}/report/report.html"), r"report\.html: "),
    # Manifests, changed.
    "a part's manifest": (
        edited(f"{DATASET}/filter/part-00000.json", lambda body: body["counts"].update(kept=1)),
        r"filter/part-00000\.json: changed since",
    ),
    "a part's manifest and the stage's digest of it": (
        forged(edited(f"{DATASET}/filter/part-00000.json", lambda body: body.update(settings="0" * 64))),
        r"filter/part-00000\.json: was made with other settings",
    ),
    "a scorer's manifest and the stage's digest of it": (
        forged(edited(f"{DATASET}/score/duplicate.json", lambda body: body.update(settings="0" * 64))),
        r"score/duplicate\.json: was made with other settings",
    ),
    "the model that a scorer asked": (
        forged(edited(f"{DATASET}/score/duplicate.json", lambda body: body.update(judges={"other": {}}))),
        r"score/duplicate\.json: names other models",
    ),
    "a metric's manifest and the stage's digest of it": (
        forged(edited(f"{RUN}/measure/geneval.json", lambda body: body.update(settings="0" * 64)), lock=True),
        r"measure/geneval\.json: was made with other settings",
    ),
    "a count in a manifest": (
        edited(f"{RUN}/train/manifest.json", lambda body: body["counts"].update(steps=12000)),
        r"train/manifest\.json: is not what dvc\.lock holds of train-demo \(md5 .*; here md5",
    ),
    "a setting in a manifest": (
        edited(f"{RUN}/train/manifest.json", lambda body: body["params"].update(seed=1)),
        r"train/manifest\.json: was made with other settings than the configuration's \(seed was 1 and is 0\)",
    ),
    "a manifest without a file": (
        edited(f"{RUN}/train/manifest.json", lambda body: body["files"].pop("history.parquet")),
        r"history\.parquet: no file of the stage",
    ),
    "a key that stands twice": (
        twice_a_key,
        r"evaluate/manifest\.json: not written as darkroom writes manifests",
    ),
    "a manifest cut short": (cut(f"{RUN}/draw/manifest.json"), r"draw/manifest\.json: no manifest"),
    "a manifest of nothing but brackets": (
        lambda folder: put(folder / RUN / "draw/manifest.json", b"[" * 100_000),
        r"draw/manifest\.json: no manifest",
    ),
    "a manifest that leads out of its folder": (
        a_manifest_that_leads_out,
        r"evaluate/manifest\.json: names '\.\./\.\./\.\./\.\./dvc\.yaml', which is no file of the stage",
    ),
    "another stage's manifest": (
        copied(f"{RUN}/draw/manifest.json", f"{RUN}/measure/manifest.json"),
        r"measure/manifest\.json: is a manifest of the stage 'draw'",
    ),
    # Forged, so that everything fits but what was recorded.
    "a forged score": (forged(SCORE), r"evaluate/metrics\.json: is not what dvc\.lock holds"),
    "a forged score, copies too": (
        with_all_copies,
        r"published/evaluate-demo/metrics\.json: is not what dvc\.lock",
    ),
    "forged captions": (forged(CAPTION), r"recaption/manifest\.json: is not what dvc\.lock holds"),
    "forged weights": (forged(WEIGHTS), r"train/model: is not what dvc\.lock holds of train-demo"),
    "forged pictures": (
        forged(flip(f"{RUN}/draw/pictures/trained/chunk-00000.tar", 700)),
        r"draw/pictures: is not what dvc\.lock holds of draw-demo",
    ),
    "a list that is not the source's, dvc.lock made to fit": (
        other_rows,
        r"urls\.parquet: is not what the source lists now: row 0 differs",
    ),
    "a part taken out everywhere, dvc.lock made to fit": (
        without_a_part,
        r"manifest\.json: has not the dataset's 2 parts: part-00001\.json",
    ),
    "scores of a model that was not trained, dvc.lock made to fit": (
        both(
            edited(f"{RUN}/evaluate/metrics.json", lambda body: body["models"].update(trained="0" * 64)),
            lambda folder: refit_lock(folder, measured=False),
        ),
        r"evaluate/metrics\.json: tells of another trained model than was trained",
    ),
    "a metric of pictures that were not drawn, dvc.lock made to fit": (
        both(
            edited(f"{RUN}/measure/geneval.protocol.json", lambda body: body.update(pictures="0" * 64)),
            lambda folder: refit_lock(folder, measured=False),
        ),
        r"geneval\.protocol\.json: geneval was measured on other pictures than were drawn",
    ),
    "dvc.lock made to fit a forged manifest of one stage": (
        both(
            edited(f"{RUN}/train/manifest.json", lambda body: body["counts"].update(steps=12000)),
            lambda folder: lock_one(folder, "train-demo", f"{RUN}/train/manifest.json"),
        ),
        r"dvc\.lock: draw-demo: was made from another results/runs/demo/train/manifest\.json",
    ),
    "a stage taken out of dvc.lock": (
        in_yaml("dvc.lock", lambda body: body["stages"].pop("evaluate-demo")),
        r"dvc\.lock: evaluate-demo: missing, though the run is published",
    ),
    "dvc.lock taken away": (
        remove("dvc.lock"),
        r"dvc\.lock: train-demo: missing, though the run is published",
    ),
    "an option in dvc.lock": (
        in_yaml(
            "dvc.lock",
            lambda body: body["stages"]["train-demo"]["params"]["config/runs/demo.yaml"].update(seed=3),
        ),
        r"dvc\.lock: train-demo: was recorded with other options .*: seed was 3 and is 0",
    ),
    "an out of dvc.lock": (
        in_yaml("dvc.lock", lambda body: body["stages"]["train-demo"]["outs"].pop()),
        r"dvc\.lock: train-demo: was recorded as leaving other files",
    ),
    "another command in dvc.yaml": (
        in_text("dvc.yaml", "snakemake train --config run=demo", "true"),
        r"dvc\.yaml: train-demo: is not as the configuration gives it",
    ),
    # Copies that Git tracks.
    "a copy's score": (
        edited("published/evaluate-demo/metrics.json", lambda body: body["trained"].update(clip_score=99.0)),
        r"published/evaluate-demo/metrics\.json: is not what dvc\.lock holds",
    ),
    "a copy's loss": (flip("published/train-demo/loss.csv"), r"published/train-demo/loss\.csv: is not"),
    "a copied manifest": (
        edited("published/draw-demo/manifest.json", lambda body: body["counts"].update(pictures={})),
        r"published/draw-demo/manifest\.json: is not what dvc\.lock holds",
    ),
    "a file among the copies": (
        add("published/train-demo/more.csv"),
        r"more\.csv: no file of the published result",
    ),
    "a link among the copies": (
        link("published/train-demo/loss.csv"),
        r"published/train-demo/loss\.csv: a link to",
    ),
    # Files that were added.
    "another tar and table": (
        both(
            copied(f"{DATASET}/download/part-00000.tar", f"{DATASET}/download/part-00002.tar"),
            copied(f"{DATASET}/download/part-00000.parquet", f"{DATASET}/download/part-00002.parquet"),
        ),
        r"download/part-00002\.tar: no file of the stage",
    ),
    "another part in every way": (
        both(
            *(
                copied(f"{DATASET}/filter/part-00000.{end}", f"{DATASET}/filter/part-00002.{end}")
                for end in ("parquet", "json")
            )
        ),
        r"filter/part-00002\.json: no file of the stage",
    ),
    "a hidden file in the model": (
        add(f"{MODEL}/.hidden.py"),
        r"train/model/\.hidden\.py: no file of the stage",
    ),
    "a hidden folder in the model": (
        add(f"{MODEL}/.git/config"),
        r"train/model/\.git/config: no file of the stage",
    ),
    "something behind Snakemake's mark": (
        lambda folder: put(folder / MODEL / ".snakemake_timestamp", b"more"),
        r"\.snakemake_timestamp: no file of the stage",
    ),
    "a file that DVC passes over in the model": (
        add(f"{MODEL}/logs/notes.txt"),
        r"train/model: changed since",
    ),
    "an empty folder in the model": (
        lambda folder: (folder / MODEL / "unet").mkdir(),
        r"train/model/unet: no folder of the stage",
    ),
    "a file as a killed job leaves it": (
        add(f"{DATASET}/download/.part-00000.tar.4711.tmp"),
        r"\.part-00000\.tar\.4711\.tmp: left by a job that was killed",
    ),
    "a picture beside the drawn ones": (
        add(f"{RUN}/draw/pictures/trained/chunk-00001.tar"),
        r"pictures/trained/chunk-00001\.tar: no file of the stage",
    ),
    "a file beside the stages": (
        add(f"{RUN}/notes.txt"),
        r"results/runs/demo/notes\.txt: no file of any stage",
    ),
    "a folder beside the stages": (
        add(f"{DATASET}/other/x"),
        r"results/datasets/demo/other: a folder, which is no",
    ),
    "a file beside the list": (add(f"{DATASET}/more.parquet"), r"more\.parquet: no file of the dataset"),
    "a name that a terminal would run": (
        add(f"{RUN}/evaluate/\x1b[2Jx\nok"),
        r"evaluate/\\x1b\[2Jx\\nok: no file of the stage",
    ),
    # Files that are gone or in another place.
    "a tar gone": (remove(f"{DATASET}/download/part-00001.tar"), r"part-00001\.tar: missing, though others"),
    "a part gone": (
        remove(*(f"{DATASET}/recaption/part-00001.{end}" for end in ("json", "parquet"))),
        r"recaption/part-00001\.json: missing, though others",
    ),
    "the model gone": (remove(MODEL), r"train/model: missing, though others"),
    "the metrics gone": (
        remove(f"{RUN}/evaluate/metrics.json"),
        r"evaluate/metrics\.json: missing, though others",
    ),
    "a manifest gone": (remove(f"{RUN}/draw/manifest.json"), r"draw/manifest\.json: missing, though"),
    "the list gone": (remove(f"{DATASET}/urls.parquet"), r"urls\.parquet: missing, though others"),
    "two tars in each other's place": (
        swap(f"{DATASET}/download/part-00000.tar", f"{DATASET}/download/part-00001.tar"),
        r"part-00000\.tar: changed since",
    ),
    "the untrained model as the trained": (
        swap(*(f"{RUN}/draw/pictures/{model}/chunk-00000.tar" for model in ("trained", "untrained"))),
        r"untrained/chunk-00000\.tar: changed since",
    ),
    # What is no plain file.
    "a file behind a link": (
        link(f"{DATASET}/download/part-00000.tar"),
        r"part-00000\.tar: a link to .*no file",
    ),
    "the model behind a link": (link(MODEL), r"train/model: a link to"),
    "a folder of the model behind a link": (link(f"{MODEL}/vae"), r"train/model/vae: a link to"),
    "a stage behind a link": (link(f"{RUN}/evaluate"), r"results/runs/demo/evaluate: a link to"),
    "a link to nothing": (
        lambda folder: (folder / RUN / "draw/x").symlink_to("nowhere"),
        r"draw/x: a link to nowhere, which no stage leaves",
    ),
    "a link to a device": (a_device, r"vae/config\.json: a link to /dev/zero"),
    "a named pipe for a part": (pipe(f"{DATASET}/download/part-00000.tar"), r"part-00000\.tar: a named pipe"),
    "a named pipe for a manifest": (
        pipe(f"{RUN}/train/manifest.json"),
        r"train/manifest\.json: a named pipe",
    ),
    "a named pipe in the model": (pipe(f"{MODEL}/unet.bin"), r"train/model/unet\.bin: a named pipe"),
    "a named pipe beside the list": (pipe(f"{DATASET}/x"), r"results/datasets/demo/x: a named pipe"),
    "a named pipe for a copy": (pipe("published/train-demo/loss.csv"), r"loss\.csv: a named pipe"),
    "a named pipe for the report": (pipe(f"{RUN}/report/report.html"), r"report\.html: a named pipe"),
    "a socket": (a_socket, r"evaluate/socket: a socket, which no stage leaves"),
    "a folder for a file": (
        both(remove(f"{RUN}/train/loss.csv"), lambda folder: (folder / RUN / "train/loss.csv").mkdir()),
        r"train/loss\.csv: ",
    ),
    # Another configuration, other components.
    "results of another configuration": (
        in_yaml("config/runs/demo.yaml", lambda body: body["train"].update(learning_rate=0.0005)),
        r"train/manifest\.json: was made with other settings .*train\.learning_rate was 0\.002 and is 0\.0005",
    ),
    "results of another dataset": (
        in_yaml("config/datasets/demo.yaml", lambda body: body["source"].update(num_scenes=151)),
        r"download/manifest\.json: was made with other settings .*source\.num_scenes was 150 and is 151",
    ),
    "a component": (
        lambda folder: flip_component(folder),
        r"vae: is not what dvc\.lock holds \(md5",
    ),
}
