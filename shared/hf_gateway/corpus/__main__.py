"""`python -m hf_gateway.corpus` is a worker process, which a job starts."""

from hf_gateway.corpus.worker import serve

if __name__ == "__main__":
    serve()
