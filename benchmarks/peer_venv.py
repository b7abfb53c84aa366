"""An environment for the peers that the project must not depend on: xgrammar needs torch.

It sees everything that the project's own environment has, through a .pth file, so that MLX, mlx-lm and llguidance are
the same; torch and xgrammar are installed on top, and are found nowhere else.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".peers"
WITH_DEPENDENCIES = ("torch==2.13.*", "apache-tvm-ffi>=0.1.11")
WITHOUT_DEPENDENCIES = ("xgrammar==0.2.8",)  # among them triton, which only a GPU wants


def python_of_peers() -> Path:
    return FOLDER / "bin" / "python"


def set_up(pip_options: tuple[str, ...] = ()) -> None:
    """Make the environment, unless it is there. Raises subprocess.CalledProcessError where pip fails.

    pip_options: such as --extra-index-url, for builds of torch without CUDA.
    """
    if python_of_peers().is_file():
        return
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    purelib = next((FOLDER / "lib").glob("python*")) / "site-packages"
    (purelib / "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [str(python_of_peers()), "-m", "pip", "install", "--quiet", *pip_options]
    subprocess.run([*install, *WITH_DEPENDENCIES], check=True)
    subprocess.run([*install, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
