"""The fitted models and their proof: fits, held-out errors, and docs/accuracy.md.

python -m bench.accuracy                errors on left-out rows; writes docs/accuracy.md
python -m bench.accuracy.fit_runs       device-hours; writes src/dusuan/facts/run_model.json
python -m bench.accuracy.fit_mfu        training steps; writes step_model.json
python -m bench.accuracy.fit_serving    serving; writes serving_model.json
python -m bench.accuracy.fit_energy     power; writes power_model.json
"""
