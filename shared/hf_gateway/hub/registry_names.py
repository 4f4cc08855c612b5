"""Names of model-registry connectors that this one keeps, so that code written for another finds them, or a pointer.

The differences that are meant stand in docs/hub.md, "Coming from another Hub connector".
"""

from typing import Any, NoReturn

_NO_JOBS = (
    "hf-gateway runs no jobs: train with transformers and peft, or see "
    "https://huggingface.co/docs/huggingface_hub/guides/jobs; then publish with upload_artifact"
)


class RegistryNames:
    """What a registry is asked besides models: its name, its credentials, and the jobs that it does not run."""

    name = "huggingface"
    """What a list of connectors calls it."""

    def get_required_credentials(self) -> list[str]:
        """Return the keys that `connect` takes from a mapping."""
        return ["token"]

    def list_resources(self) -> list[Any]:
        """Return the machines that can be rented here: none."""
        return []

    async def alist_resources(self) -> list[Any]:
        """Do as `list_resources`."""
        return self.list_resources()

    def submit_job(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def get_job_status(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def cancel_job(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def stream_logs(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(_NO_JOBS)

    def fetch_artifact(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(f"{_NO_JOBS}; what is published already, download_model fetches")

    def get_pricing(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway rents no machines, so they have no price here; check_compatibility says what providers take for a model"
        )

    def train_model(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway trains nothing: train with transformers and peft, then publish with upload_artifact"
        )

    def provision_compute(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway rents no machines: see https://huggingface.co/docs/huggingface_hub/guides/jobs"
        )

    def create_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        """Not done here. Raises NotImplementedError."""
        raise NotImplementedError(
            "hf-gateway creates no Inference Endpoints: create one at https://endpoints.huggingface.co, then use the target "
            "'endpoint:<its URL>'"
        )
