"""torchvision imports, whether or not its compiled library can be loaded; in worker processes too."""

import subprocess
import sys

CODE = """
import vlc
from torch.utils.data import DataLoader, Dataset
import torchvision
class Numbers(Dataset):
    def __len__(self): return 2
    def __getitem__(self, number):
        import torchvision.transforms.functional
        return number
if __name__ == "__main__":
    print(list(DataLoader(Numbers(), num_workers=1, multiprocessing_context="spawn")))
"""


def test_torchvision_imports_here_and_in_spawned_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CODE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=".", env=_environment())
    assert done.stdout.strip() == "[tensor([0]), tensor([1])]", done.stderr


def test_importing_vlc_imports_no_torch():
    code = "import vlc, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.getcwd()}
