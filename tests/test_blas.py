"""Each case needs a process of its own: a BLAS is chosen once, before mlx is imported."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

MULTIPLY = "import mlx.core as mx; mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)));"
REPORT = "from engine.blas import load_blas; blas = load_blas(); print(blas.is_bundled, blas.name, blas.reason)"


def has_mkl() -> bool:
    try:
        importlib.metadata.version("mkl")
    except importlib.metadata.PackageNotFoundError:
        return False
    return sys.platform == "linux" and platform.machine() == "x86_64"


needs_mkl = pytest.mark.skipif(not has_mkl(), reason="oneMKL is not installed")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Of oneMKL: one line on stdout for each product that it is asked for.
    variables = {name: value for name, value in os.environ.items() if name != "TOOLMASK_BLAS"}
    variables |= {"MKL_VERBOSE": "1"} | environment
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)


@needs_mkl
def test_products_of_mlx_go_to_onemkl() -> None:
    done = run(f"import engine; {MULTIPLY} {REPORT}")
    assert "SGEMM(N,N,64,64,64" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("False oneMKL")


def test_the_switch_leaves_mlx_its_own() -> None:
    done = run(f"import engine; {MULTIPLY} {REPORT}", TOOLMASK_BLAS="off")
    assert done.stdout == "True bundled TOOLMASK_BLAS=off\n"
    assert done.stderr == ""


@needs_mkl
def test_imported_after_mlx_it_changes_nothing_and_says_so() -> None:
    done = run(f"import mlx.core, engine; {MULTIPLY} {REPORT}")
    assert done.stdout == "True bundled mlx was imported before toolmask\n"
    assert "Import toolmask's engine first" in done.stderr


def test_without_the_package_nothing_happens() -> None:
    hide = "import importlib.metadata as m\ndef files(name): raise m.PackageNotFoundError(name)\nm.files = files\n"
    done = run(f"{hide}import engine; {MULTIPLY} {REPORT}")
    assert done.stdout.splitlines()[-1].startswith("True bundled")
    assert done.stderr == ""


def test_importing_the_engine_imports_neither_mlx_nor_transformers() -> None:
    run("import sys, engine; assert not {'mlx.core', 'mlx_lm', 'transformers'} & set(sys.modules)")
