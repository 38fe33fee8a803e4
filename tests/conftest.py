import os

# Many short tests on few cores: one thread each is several times faster than all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
