"""Pre-train, fine-tune or test: `python run.py with NAMED_CONFIG ... key=value ...`."""

from vlc.config import ex, shown_to_user
from vlc.data.workers import start_worker_server


@ex.automain
def main(_config, _run):
    with shown_to_user():
        from vlc.settings import Settings

        settings = Settings.from_config(_config)  # before the heavy imports: mistakes are told at once
        if settings.data.num_workers:
            start_worker_server()
        from vlc.distributed import leave
        from vlc.run import run

        metrics = run(settings)
        leave()
        return metrics
