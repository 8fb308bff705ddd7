"""Pre-train, fine-tune or test: `python run.py with NAMED_CONFIG ... key=value ...`.

What was trained is used by `python run.py predict|index|search|features|hard_pool|serve|explain|export|probe
with load_path=CHECKPOINT ...`, and looked at by `python run.py report with run=FOLDER`. `python run.py sweep with ...`
trains with several values, `python run.py fit with table=FILE` on a table of your own, and `python run.py doctor` looks at
the machine.
"""

from vlc.configuration.config import ex, given_keys, user_errors_without_traceback
from vlc.data.workers import start_worker_server


def _stored_rows(path: str) -> dict:
    """The rows of users' own tasks that a checkpoint stores."""
    from vlc.checkpoint import weights

    return weights.read(path).extras.get("rows", {})


ex.stored_rows = _stored_rows


@ex.command(unobserved=True)
def predict(_config, _run):
    """Answer about an image: image=FILE text="..." [image2=FILE]."""
    with user_errors_without_traceback():
        from vlc.use.predict import predict

        predict(_config, given_keys(_run))


@ex.command(unobserved=True)
def index(_config, _run):
    """Embed images and texts for searching: index=FOLDER, and datasets=[...] or image_folder=FOLDER."""
    with user_errors_without_traceback():
        from vlc.use.search import build_index

        build_index(_config, given_keys(_run))


@ex.command(unobserved=True)
def search(_config, _run):
    """Find images by text or texts by image: index=FOLDER, and query="..." or image=FILE."""
    with user_errors_without_traceback():
        from vlc.use.search import search

        search(_config, given_keys(_run))


@ex.command(unobserved=True)
def hard_pool(_config, _run):
    """Find for each training image those that look most alike: data_root=ARROWS datasets=[...] [out=FOLDER]."""
    with user_errors_without_traceback():
        from vlc.use.hard_pool import make_hard_pools

        make_hard_pools(_config, given_keys(_run))


@ex.command(unobserved=True)
def serve(_config, _run):
    """Answer requests over HTTP, with a page: load_path=CHECKPOINT [service.port=5000] [index=FOLDER]."""
    with user_errors_without_traceback():
        from vlc.use.service.serve import serve

        serve(_config, given_keys(_run))


@ex.command(unobserved=True)
def explain(_config, _run):
    """Show which patches and words an answer depends on: image=FILE text="...", or datasets=[...] out=FOLDER."""
    with user_errors_without_traceback():
        from vlc.use.explain.command import explain_image

        explain_image(_config, given_keys(_run))


@ex.command(unobserved=True)
def report(_config, _run):
    """Write a page about a run, a test or a demonstration: run=FOLDER [compare=FOLDER] [out=FILE]."""
    with user_errors_without_traceback():
        from vlc.use.report import report

        report(_config, given_keys(_run))


@ex.command(unobserved=True)
def export(_config, _run):
    """Write the heads for other programs: out=FOLDER [file_format=onnx]."""
    with user_errors_without_traceback():
        from vlc.use.export.command import export

        export(_config, given_keys(_run))


@ex.command(unobserved=True)
def probe(_config, _run):
    """Classify images by the names of classes, and by a linear probe: data_root=FOLDER [probe.shots=16] [out=FILE]."""
    with user_errors_without_traceback():
        from vlc.use.probe import probe

        probe(_config, given_keys(_run))


@ex.command(unobserved=True)
def features(_config, _run):
    """Write the features of images: out=FOLDER, and data_root=ARROWS datasets=[...] or image_folder=FOLDER."""
    with user_errors_without_traceback():
        from vlc.use.features import write_features

        write_features(_config, given_keys(_run))


@ex.command(unobserved=True)
def sweep(_config, _run):
    """Train with several values and seeds, and compare: NAMED_CONFIG ... sweep.values.KEY=[...] ..."""
    with user_errors_without_traceback():
        from vlc.workflows.sweep import sweep

        sweep(_config, _run.meta_info["named_configs"], _run.meta_info["config_updates"])


@ex.command(unobserved=True)
def doctor(_config, _run):
    """Look at the machine, data and checkpoints: [data_root=ARROWS] [load_path=CHECKPOINT] [tokenizer=NAME] [out=FILE]."""
    with user_errors_without_traceback():
        from vlc.workflows.doctor.command import doctor

        doctor(_config, given_keys(_run))


@ex.command(unobserved=True)
def fit(_config, _run):
    """Learn from a labelled table of your own: table=FILE [load_path=CHECKPOINT] [out=FOLDER] [fit.minutes=5]."""
    with user_errors_without_traceback():
        from vlc.workflows.fit import fit

        fit(_config, given_keys(_run), _run.meta_info["config_updates"], _run.meta_info["named_configs"])


@ex.automain
def main(_config, _run):
    with user_errors_without_traceback():
        from vlc.configuration.settings import Settings

        settings = Settings.from_config(_config)  # before the heavy imports, so that mistakes show at once
        if settings.data.num_workers:
            start_worker_server()
        from vlc.hardware.distributed import destroy_process_group
        from vlc.hardware.rendezvous import bind_stores
        from vlc.training.run import run
        from vlc.training.saving import Interrupted

        bind_stores()
        try:
            metrics = run(settings)
        except Interrupted as stop:
            if stop.together:
                destroy_process_group()
            raise
        destroy_process_group()
        return metrics
