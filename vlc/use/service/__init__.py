"""The service: a checkpoint's heads answer requests over HTTP, as JSON and on a page.

`create_app` makes an ASGI application; `run.py serve` runs it by uvicorn. It stands on FastAPI and the extra `serve`.
"""
