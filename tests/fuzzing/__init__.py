"""Fuzzing of what reads text that others wrote: model output, records, journals, config files.

``targets`` says what must hold for any bytes, ``mutate`` makes bytes out of the stored corpus in
``tests/fuzz_corpus``. ``make fuzz`` tries for a time; what it finds it stores in that corpus,
and ``tests/test_fuzz.py`` tries every stored file ever after.
"""
