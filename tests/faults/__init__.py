"""The fault rig: the real command is disturbed, resumed, and compared with an undisturbed run.

``kinds`` holds one function for each kind of fault, ``scene`` what they happen to, ``checks``
what must hold afterwards, ``rig`` brings the three together for one seed. From the checkout:

    make test-faults FAULTS=300 SEED=0      # 300 seeds, a table by kind of fault
    make test-faults FAULTS=1 SEED=17       # repeats seed 17
"""
