"""Methods of model-registry connectors that are kept here, so that code written for another connector gets a useful error.

docs/hub.md, "Coming from another Hub connector", lists the intended differences.
"""

from typing import Any, NoReturn

_NO_JOBS = (
    "hf-gateway runs no jobs: train with transformers and peft, or see "
    "https://huggingface.co/docs/huggingface_hub/guides/jobs; then publish with upload_artifact"
)


class RegistryNames:
    """What a registry offers besides models: its name, its credentials, and jobs, which are not supported."""

    name = "huggingface"
    """Name in a list of connectors."""

    def get_required_credentials(self) -> list[str]:
        """Return the keys that `connect` reads from a mapping."""
        return ["token"]

    def list_resources(self) -> list[Any]:
        """Return the machines for rent: an empty list."""
        return []

    async def alist_resources(self) -> list[Any]:
        """Async form of `list_resources`."""
        return self.list_resources()

    def submit_job(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def get_job_status(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def cancel_job(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def stream_logs(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def fetch_artifact(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(f"{_NO_JOBS}; download_model downloads what is published already")

    def get_pricing(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway does not rent machines, so they have no price; check_compatibility shows providers' prices for a model"
        )

    def train_model(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway does not train models: train with transformers and peft, then publish with upload_artifact"
        )

    def provision_compute(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway does not rent machines: see https://huggingface.co/docs/huggingface_hub/guides/jobs"
        )

    def create_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway does not create Inference Endpoints: create one at https://endpoints.huggingface.co, then use the target "
            "'endpoint:<its URL>'"
        )
