"""The service under attack and load: `python -m benchmarks.service load|stop|memory|pictures|fuzz`.

Everything happens on 127.0.0.1, with a given number of requests or seconds. Without --checkpoint the model is a small
random one with a head of each form.
"""
