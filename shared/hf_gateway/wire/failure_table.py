"""The meaning of failed responses: rules as data, each with its reason.

`classify.py` evaluates them from the top, and the first match counts. Codes come first, since a code is unambiguous whatever the
words around it; words second, at 4xx and 5xx alike, since servers choose the status freely; the status alone last. The codes
and words are the servers' own: TEI router/src/http/server.rs, TGI router/src/validation.rs, Ollama server/routes.go, vLLM's,
llama.cpp's and SGLang's OpenAI servers, OpenAI, Azure, Anthropic, Groq, Mistral, Cohere, OpenRouter, and recordings of the
Hugging Face router and its providers.
"""

from collections.abc import Container
from dataclasses import dataclass

from hf_gateway.errors import (
    AttemptTimedOut,
    AuthenticationFailed,
    BadGeneration,
    BadResponse,
    BatchTooLarge,
    ConnectFailed,
    ContentFiltered,
    ContextOverflow,
    GatedModel,
    GatewayError,
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    PermissionDenied,
    RateLimited,
    ServerError,
    Unsupported,
)

REDIRECT = range(300, 400)
CLIENT = range(400, 500)
SERVER = range(500, 600)
FAILED = range(400, 600)
SAYS_ITSELF = frozenset({401, 402, 403, 404, 408, 429})
"""Statuses that mean the same at every server; words are matched there only by rules that name the status."""
PASSING = frozenset({409, 421, 423, 425, 499})
"""4xx statuses for which the request is not at fault."""
REFUSED = frozenset(CLIENT) - SAYS_ITSELF
"""Statuses with which servers reject a request; which one they choose says little."""
REFUSED_OR_FAILED = REFUSED | frozenset(SERVER)


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    kind: type[GatewayError]
    """The class of the error."""
    why: str
    """The reason, for a reader."""
    statuses: Container[int] = FAILED
    """The statuses that the row applies to."""
    codes: frozenset[str] = frozenset()
    """Codes of which one must be in the body, in lower case."""
    words: str | None = None
    """A pattern for the server's message. If there are codes and words, both must match."""


def _codes(names: str) -> frozenset[str]:
    return frozenset(names.split())


_CODE_RULES: tuple[Rule, ...] = (
    Rule(
        ContextOverflow,
        "one request of more tokens than the plan allows in a minute: waiting never helps, a target with another plan may",
        codes=_codes("rate_limit_exceeded tokens"),
        words="request too large",
    ),
    Rule(
        ContextOverflow,
        "the code for a conversation or text that is longer than the model takes; another model may take more",
        codes=_codes(
            "context_length_exceeded exceed_context_size_error context_window_exceeded context_window_exceeded_error "
            "contextwindowexceedederror model_max_prompt_tokens_exceeded tokens_limit_reached string_above_max_length"
        ),
    ),
    Rule(
        ContentFiltered,
        "the code of a content policy; its refusal is passed on and never routed around",
        codes=_codes(
            "content_filter content_filtered content_policy_violation responsibleaipolicyviolation moderation_blocked "
            "data_inspection_failed datainspectionfailed"
        ),
    ),
    Rule(
        BadGeneration,
        "the model itself wrote a tool call or JSON that its server cannot read; it may do better when it is asked again",
        codes=_codes("tool_use_failed json_validate_failed output_parse_failed"),
    ),
    Rule(
        PaymentRequired,
        "the account has no money; it stays so however long one waits, and only another account can serve",
        codes=_codes(
            "insufficient_quota billing_not_active billing_hard_limit_reached insufficient_balance insufficient_credits "
            "insufficient_user_quota exceeded_current_quota_error arrearage budget_exceeded"
        ),
    ),
    Rule(
        GatedModel,
        "the code for terms that a user has to accept first",
        codes=_codes("model_terms_required"),
    ),
    Rule(
        ModelNotFound,
        "the code for a model that this target does not have; another may have it",
        codes=_codes(
            "model_not_found modelnotfound model_not_supported model_not_available model_decommissioned invalid_model "
            "unknown_model deploymentnotfound"
        ),
    ),
    Rule(
        Unsupported,
        "the code for something that this server or its model cannot do; another may",
        codes=_codes("not_supported_error template_error unsupported_parameter unsupported_value"),
    ),
    Rule(
        AuthenticationFailed,
        "the code for a refused key, which does not concern other targets",
        codes=_codes("invalid_api_key invalidapikey api_key_invalid incorrect_api_key authentication_error"),
    ),
    Rule(
        PermissionDenied,
        "the code for a place that this provider does not serve",
        codes=_codes("unsupported_country_region_territory"),
    ),
    Rule(
        RateLimited,
        "the code for too many requests or tokens in a while; the target rests",
        codes=_codes(
            "rate_limit_exceeded rate_limit_error request_quota_exceeded too_many_requests too_many_requests_error "
            "resource_exhausted throttlingexception throttling"
        ),
    ),
    Rule(
        Overloaded,
        "the code for a server that is too busy, at whichever status; 429 says the same for longer",
        statuses=frozenset(FAILED) - {429},
        codes=_codes("overloaded overloaded_error engine_overloaded_error"),
    ),
    Rule(
        BatchTooLarge,
        "the code for more tokens than one request may have, which splitting helps",
        codes=_codes("max_tokens_per_request"),
    ),
)

_WORD_RULES: tuple[Rule, ...] = (
    Rule(
        PaymentRequired,
        "these words speak of money at whichever status; `billing` alone does not, it stands in adverts below rate limits",
        words=(
            r"insufficient (account )?(balance|credit|funds|quota)|(balance|credits?) .{0,20}(too low|exhausted|used up)"
            r"|check your (plan and )?billing|billing hard limit|spending limit|past (due )?invoices"
            r"|(exceeded|depleted|out of|requires more|don't have any) .{0,40}\bcredits|account .{0,20}(overdue|in arrears)"
        ),
    ),
    Rule(
        BadGeneration,
        "what these words blame is the model's own output, not the request",
        words=(
            r"failed to call a function|tool call validation failed|failed to generate json"
            r"|unexpected token \d+ while expecting|failed to parse (tool call arguments|input at pos)|error parsing tool call"
        ),
    ),
    Rule(
        ServerError,
        "a server without memory for its model does not blame the request, though it may name sizes and contexts",
        statuses=SERVER,
        words=r"out of memory|more (system )?memory|failed to (create|allocate|load)",
    ),
    Rule(
        AuthenticationFailed,
        "some servers refuse a key with a status for wrong requests",
        statuses=REFUSED,
        words=r"api[_ -]?key|access token|credential|invalid (user )?token|authorization header|unauthori[sz]ed",
    ),
    Rule(
        ContentFiltered,
        "the words of content policies, at 4xx alone: at 5xx they may speak of a filter that broke",
        statuses=REFUSED | {403},
        words=(
            r"content (policy|filter|management)|content_filter|safety|moderation|flagged|\bunsafe\b"
            r"|inappropriate content|deny-?listed"
        ),
    ),
    Rule(
        ContextOverflow,
        "llama.cpp takes a text for embedding in one physical batch: it is the text that is too long, not the list of texts",
        statuses=REFUSED_OR_FAILED,
        words=r"physical batch size",
    ),
    Rule(
        Unsupported,
        "the words for something that this server or its model cannot do; another may",
        statuses=REFUSED_OR_FAILED,
        words=(
            r"(does|do) not support|not an? (embedding|multimodal|chat) model|is not embedding|not supported for (task|provider)"
            r"|(input|feature|mode|function|tools?|images?|audio|embeddings?|streaming|calling)\b.{0,40} not support(ed)?\b"
            r"|enable-auto-tool-choice|cannot be combined with tool|requires --|not OAI compatible|template error"
            r"|must provide a chat template|not implemented|conversation roles must alternate|role not supported"
            r"|at most \d+ image|(tool_choice|response_format)\b.{0,60}(not support|unavailable|only .{0,30}support)"
        ),
    ),
    Rule(
        ModelNotFound,
        "the words for a model that this target does not have; another may have it",
        statuses=REFUSED_OR_FAILED,
        words=(
            r"(model|deployment|engine|endpoint)\b.{0,120}(not found|does not exist|is not (supported|available)|not supported by"
            r"|decommissioned|no longer supported)|unknown model|no such model|invalid model\b|not a valid model"
            r"|not supported by (any )?provider|non-serverless model"
        ),
    ),
    Rule(
        BatchTooLarge,
        "the words for too many texts or bytes in one request, which splitting helps",
        statuses=REFUSED_OR_FAILED,
        words=(
            r"batch size|length limit exceeded|payload too large|body.{0,20}(limit|too large)|too many inputs"
            r"|at most \d+ (items|inputs)|number of (inputs|texts)|array too long|more batches|max_tokens_per_request"
            r"|tokens per (request|(submitted )?batch)|too many tokens in batch"
        ),
    ),
    Rule(
        ContextOverflow,
        "the words for a text or conversation that is longer than the model takes; another may take more",
        statuses=REFUSED_OR_FAILED,
        words=(
            r"must have less than \d+ tokens|context (length|window)|exceed.{0,40}context|prompt is too long|too many tokens"
            r"|maximum (supported )?(sequence|input|prompt) length|input length exceeds|input is too long|tokens? limit"
            r"|too large to process|exceed n_ctx|tokens?\b.{0,20}\bexceed|reduce the length|tokens.{0,40} must be <= \d+"
            r"|current length is \d+|context size .{0,20}exceeded|context shift is disabled|range of input length"
            r"|exceeds? (the )?max(imum)?( allowed)? (length|token)"
            r"|size of (the )?tensor.{0,40}must match.{0,60}non-singleton dimension"
        ),
    ),
    Rule(
        ContextOverflow,
        "looser words for the same, which at 5xx may speak of something else",
        statuses=REFUSED,
        words=r"maximum.{0,40}context|context size|too long",
    ),
    Rule(
        RateLimited,
        "some servers report with a status of their own that the server behind them limits requests",
        statuses=REFUSED_OR_FAILED,
        words=r"rate.?limit(ed)?( was| is)? (exceeded|reached)|too many requests|rate-limited",
    ),
    Rule(
        ModelLoading,
        "a model on its way into memory, also where the status is that of a failure",
        statuses=SERVER,
        words=r"^loading model|(is|still|currently) (being )?(loading|loaded|starting|initiali[sz]ing)|estimated_time",
    ),
    Rule(
        ModelLoading,
        "at 503 these words tell a start from a server that is too busy",
        statuses={503},
        words=r"loading|initiali[sz]ing|starting",
    ),
    Rule(
        Overloaded,
        "the words for a server that is too busy, where the status says less",
        statuses=SERVER,
        words=r"overloaded|(over|at|no) capacity|server (is )?(too )?busy",
    ),
    Rule(
        GatedModel,
        "a 403 for want of an accepted licence has a remedy of its own",
        statuses={403},
        words=r"gated|awaiting (a )?review|accept the|agree to|must have access|ask for access",
    ),
    Rule(
        Unsupported,
        "OpenRouter says by 404 that none of a model's providers can do what was asked for",
        statuses={404},
        words=r"that support|does not support",
    ),
)

_STATUS_RULES: tuple[Rule, ...] = (
    Rule(BadResponse, "redirects are followed before; one that is left leads nowhere", REDIRECT),
    Rule(AuthenticationFailed, "the key was refused, whatever the words", {401}),
    Rule(PaymentRequired, "the account's credits are used up", {402}),
    Rule(PermissionDenied, "the key is known and may not do this", {403}),
    Rule(ModelNotFound, "the address is right for everything else, so it is the model that is missing", {404}),
    Rule(AttemptTimedOut, "the server gave up waiting", {408}),
    Rule(BatchTooLarge, "a body of too many bytes, mostly told by a proxy; smaller parts may pass", {413}),
    Rule(ServerError, "TEI and TGI answer 424 when the model behind them fails", {424}),
    Rule(RateLimited, "asked too often; the target rests", {429}),
    Rule(ConnectFailed, "a proxy on the way wants to know who asks; the server was not reached", {407}),
    Rule(
        ServerError,
        "about the moment or the way, not the request: conflict, wrong host, locked, too early, left",
        PASSING,
    ),
    Rule(ModelNotFound, "what was there is gone, and the address is right for everything else", {410}),
    Rule(PermissionDenied, "not served from here for legal reasons", {451}),
    Rule(ContentFiltered, "Cohere's own status for what its policy refuses", {498}),
    Rule(Unsupported, "the route or the method is not there, and both are ours, not the caller's", {405, 501}),
    Rule(Overloaded, "up, and too busy", {503, 529}),
    Rule(ServerError, "the server failed, and does not say why", SERVER),
    Rule(InvalidRequest, "the request is at fault, the same everywhere", CLIENT),
)

RULES: tuple[Rule, ...] = (*_CODE_RULES, *_WORD_RULES, *_STATUS_RULES)
"""The table, in order."""

STATUS_OF: tuple[tuple[str, int], ...] = (
    ("overloaded", 503),
    ("rate_limit", 429),
    ("too many requests", 429),
    ("validation", 422),
    ("invalid_request", 400),
    ("badrequest", 400),
    ("content_filter", 400),
    ("authentication", 401),
    ("permission", 403),
    ("not_found", 404),
)
"""For errors in the body of a 200, which have no status: a part of a code or type → the status it has elsewhere."""
