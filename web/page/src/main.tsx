import { render } from "preact";
import { App } from "./app";
import { whoAmI } from "./session";
import "./style.css";

const place = document.getElementById("page");
if (place !== null) {
  render(<App />, place);
  void whoAmI();
}
