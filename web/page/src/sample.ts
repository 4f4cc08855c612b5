/** Texts for a first search: the handbook of a shop that does not exist, in which few questions use a passage's own words. */
export const SAMPLE = [
  "Goods that are unused and in their packaging can be sent back within 30 days of delivery. The label for the parcel is in the box.",
  "Refunds go to the means of payment that the order was paid with, usually five working days after the parcel has reached us.",
  "Orders placed before 14:00 leave the warehouse on the same day. Delivery takes one to three working days within the country.",
  "Every bicycle has a guarantee of five years on the frame and of two years on the drive, the brakes and the lights.",
  "The battery reaches about 90 kilometres in mild weather. In frost it holds about a third less; store it indoors in winter.",
  "The workshop in the yard mends punctures while you wait, from Tuesday to Saturday. For larger repairs please make an appointment.",
  "Tyres need between 3.5 and 4.5 bar. Check them once a month: soft tyres make pedalling heavy and wear out early.",
  "If the display stays dark, hold the power button for ten seconds. If it then shows E-21, the speed sensor has moved.",
  "Invoices are sent by e-mail. Companies from other countries of the EU are billed without VAT if they give a valid VAT number.",
  "Apprentices and students get ten per cent off accessories when they show their card at the till.",
].join("\n\n");

export const SAMPLE_QUESTIONS = [
  "When do I get my money back?",
  "Why is my range so short in January?",
  "Someone slashed my wheel, can you help?",
];
