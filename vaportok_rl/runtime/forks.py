"""Makes torch use one thread in every forked process.

Workers of Gymnasium's AsyncVectorEnv and of multiprocessing's Pool inherit OpenMP's pool without its threads, and would
wait for them for ever.
"""

import os

import torch

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
