import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asError, connection, isThere } from "../api";
import { Busy, Failure } from "./notices";

/** Return a view of a title whose code is loaded when it is shown for the first time, so that the first load has only what it shows. */
export function lazy<P extends object>(title: string, load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let found: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [error, setError] = useState<unknown>(null);
    const [turn, setTurn] = useState(0);
    const [, rendered] = useState(0);
    useEffect(() => {
      if (found !== null) return undefined;
      let gone = false;
      load().then(
        (component) => {
          found = component;
          if (!gone) rendered((before) => before + 1);
        },
        async (thrown: unknown) => {
          await isThere();
          if (!gone) setError(thrown);
        },
      );
      const unwatch = connection.watch(() => {
        if (connection.value.there) again();
      });
      return () => {
        gone = true;
        unwatch();
      };
    }, [turn]);
    const again = () => {
      setError(null);
      setTurn((before) => before + 1);
    };
    if (found !== null) {
      const Component = found;
      return <Component {...props} />;
    }
    return (
      <>
        <h1>{title}</h1>
        {error === null ? <Busy>Loading the view …</Busy> : <NotLoaded />}
      </>
    );
  };
}

function NotLoaded() {
  return (
    <Failure title="This part of the page could not be loaded" error={asError(new Error("its files did not come; after an update of the server they have other names"))}>
      <button type="button" onClick={() => location.reload()}>
        Load the page again
      </button>
    </Failure>
  );
}
