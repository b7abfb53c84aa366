"""A thread for a call that uses MLX, so that nothing of MLX stays with the thread that asked."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import mlx.core as mx

T = TypeVar("T")


def in_own_thread(call: Callable[[], T]) -> T:
    """What the call returns or raises. Arrays that it returns must have been evaluated.

    MLX keeps Python objects, such as the state of its random numbers, in the storage of every thread that used it, and
    frees them when that thread is gone. Where the interpreter ends at the same moment, that aborts the process.
    Clearing needs a thread that nobody goes on to use, since it takes the streams away as well.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)
        finally:
            mx.clear_streams()

    thread = threading.Thread(target=work, name="toolmask-device")
    thread.start()
    thread.join()
    return done.result()
