import { useState } from "preact/hooks";
import { Catalogue } from "../catalogue/catalogue";
import "../catalogue/catalogue.css";
import { Chains } from "../catalogue/chains";
import { HubSearch } from "../catalogue/hub";
import type { Who } from "../session";

export function ModelsView({ who }: { who: Who }) {
  // The model of the Hub that a price is to be set for.
  const [suggested, setSuggested] = useState<string | null>(null);
  return (
    <>
      <div class="head">
        <div>
          <h1>Models</h1>
          <p class="lead">What this server serves, what it costs, and what else the Hub has for this machine</p>
        </div>
      </div>
      <Chains who={who} />
      <Catalogue who={who} suggested={suggested} done={() => setSuggested(null)} />
      <HubSearch who={who} price={who.scopes.includes("admin") && who.tenant === null && who.chains === null ? setSuggested : null} />
    </>
  );
}
