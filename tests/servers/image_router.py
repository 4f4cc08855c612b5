"""The router of Inference Providers for images: the form of each provider, after its API and huggingface_hub's reading of it."""

from typing import Any

from tests.servers.images import image_list, png
from tests.servers.loopback import Loopback, Recorded, Reply

TOKEN = "hf_test"


class FakeImageRouter(Loopback):
    """The router, and the files that providers made, which lie at `files` (its own address without one).

    `pending` is how often a job is not done when it is asked for. `nsfw` makes providers withhold what they drew, `failed` is
    the reason with which jobs fail.
    """

    def __init__(self, *, files: str | None = None, pending: int = 1, nsfw: bool = False, failed: str | None = None):
        """Start it."""
        self.pending, self.nsfw, self.failed = pending, nsfw, failed
        self.drawn: dict[str, bytes] = {}
        self.asked = 0
        super().__init__()
        self.files = files or self.url

    @property
    def orders(self) -> list[Recorded]:
        """The requests that cost: one an image."""
        return [request for request in list(self.requests) if request.method == "POST"]

    def handle(self, request: Recorded) -> Reply:
        """Route."""
        if request.path.startswith("/files/"):
            return Reply(200, self.drawn[request.path], {"content-type": "image/png"})
        if request.bearer != TOKEN:
            return Reply(401, {"error": "Invalid username or password."})
        provider = request.path.split("/")[1]
        answer = {
            "hf-inference": self._hf_inference,
            "fal-ai": self._fal,
            "together": self._openai,
            "nscale": self._openai,
            "replicate": self._replicate,
            "wavespeed": self._wavespeed,
            "zai-org": self._zai,
        }.get(provider)
        # huggingface_hub asks for jobs without the provider's name where the router is not Hugging Face's own.
        return answer(request) if answer else self._wavespeed(request)

    def _url(self, prompt: str, seed: int | None) -> str:
        path = f"/files/{len(self.drawn)}.png"
        self.drawn[path] = png(prompt, seed)
        return self.files + path

    def _done(self) -> bool:
        self.asked += 1
        return self.asked > self.pending

    def _hf_inference(self, request: Recorded) -> Reply:
        seed = request.json.get("parameters", {}).get("seed")
        headers = {"content-type": "image/png", "x-compute-time": "5.457", "x-request-id": "Root=1"}
        return Reply(200, png(request.json["inputs"], seed), headers)

    def _openai(self, request: Recorded) -> Reply:
        body = request.json
        return Reply(200, image_list(png(body["prompt"], body.get("seed")), id="img-1"))

    def _fal(self, request: Recorded) -> Reply:
        body = request.json
        return Reply(
            200,
            {
                "images": [{"url": self._url(body["prompt"], body.get("seed")), "content_type": "image/png"}],
                "timings": {"inference": 0.75},
                "seed": body.get("seed", 4711),
                "has_nsfw_concepts": [self.nsfw],
                "prompt": body["prompt"],
            },
        )

    def _replicate(self, request: Recorded) -> Reply:
        if request.method == "POST":
            body = request.json["input"]
            self._order: Any = (body["prompt"], body.get("seed"))
        done = self._done() and self.failed is None
        status = "failed" if self.failed else "succeeded" if done else "processing"
        answer = {
            "id": "job-1",
            "status": status,
            "error": self.failed,
            "output": [self._url(*self._order)] if done else None,
            "urls": {"get": "https://api.replicate.com/v1/predictions/job-1"},
            "metrics": {"predict_time": 1.25} if done else {},
        }
        return Reply(201 if request.method == "POST" else 200, answer)

    def _wavespeed(self, request: Recorded) -> Reply:
        if request.method == "POST":
            body = request.json
            self._order = (body["prompt"], body.get("seed"))
            job = {"id": "job-1", "status": "created", "urls": {"get": f"{self.url}/api/v3/predictions/job-1/result"}}
            return Reply(200, {"code": 200, "data": job})
        done = self._done() and self.failed is None
        status = "failed" if self.failed else "completed" if done else "processing"
        job = {
            "id": "job-1",
            "status": status,
            "error": self.failed or "",
            "outputs": [self._url(*self._order)] if done else [],
            "has_nsfw_contents": [self.nsfw],
            "urls": {"get": f"{self.url}/api/v3/predictions/job-1/result"},
            "timings": {"inference": 2500},
        }
        return Reply(200, {"code": 200, "data": job})

    def _zai(self, request: Recorded) -> Reply:
        if request.method == "POST":
            self._order = (request.json["prompt"], request.json.get("seed"))
            return Reply(200, {"id": "job-1", "task_status": "PROCESSING", "model": request.json["model"]})
        if self.failed is not None:
            return Reply(200, {"id": "job-1", "task_status": "FAIL", "message": self.failed})
        if not self._done():
            return Reply(200, {"id": "job-1", "task_status": "PROCESSING"})
        return Reply(200, {"id": "job-1", "task_status": "SUCCESS", "image_result": [{"url": self._url(*self._order)}]})
