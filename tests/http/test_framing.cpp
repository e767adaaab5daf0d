// Where one request ends and the next begins, and which lines are headers: whoever stands in front
// must see it as the door does, or one client's body becomes another's request.
#include "door_fixture.hpp"

namespace sluice::transport {

TEST_F(DoorTest, PROOF_9_a_transfer_coding_that_is_not_chunked_alone_is_refused) {
  start();
  for (const std::string& coding : {std::string("xchunked"), std::string("identity"), std::string("gzip"),
                                    std::string("gzip, chunked"), std::string("chunked, identity")}) {
    HttpClient client(door->port());
    const auto r = client.ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn + "Transfer-Encoding: " + coding +
                              "\r\n\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
    ASSERT_TRUE(r) << coding;
    EXPECT_EQ(r->status, 400) << coding;
    EXPECT_TRUE(r->has("bad_framing")) << coding << r->body;
    EXPECT_FALSE(client.receive(20)) << coding << ": what was sent as a body is not read as a request";
  }
  // HTTP/1.0 has no transfer codings: whoever passed it on read another length.
  EXPECT_EQ(ask("POST /v1/commands/echo HTTP/1.0\r\n" + kAnn + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").status, 400);
  EXPECT_EQ(ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n").status, 200);
}

TEST_F(DoorTest, PROOF_9_what_follows_a_chunked_body_is_no_header) {
  start();
  const auto r = ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kBob +
                     "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sluice-App: bank\r\nAuthorization: Bearer x\r\n\r\n");
  EXPECT_EQ(r.status, 403) << "the app of the header, by the token of the header: " << r.body;
}

TEST_F(DoorTest, G7_an_empty_shadow_header_does_not_pass_for_live_traffic) {
  start();
  const auto r = ask(post("echo", "{}", kAnn + "X-Sluice-Shadow:\r\n"));
  EXPECT_EQ(r.status, 400) << r.body;
  EXPECT_TRUE(r.has("bad_shadow")) << r.body;
}

TEST_F(DoorTest, CONSOLE_9_a_repeated_authorization_is_refused_on_every_route) {
  start();
  const std::string twice = "Authorization: Bearer nobody\r\n" + kAnn;
  for (const char* path : {"/v1/commands", "/v1/transactions", "/openapi.json"}) {
    const auto r = ask(get(path, twice));
    EXPECT_EQ(r.status, 400) << path;
    EXPECT_TRUE(r.has("repeated_header")) << r.body;
  }
}

TEST_F(DoorTest, CONSOLE_1_a_media_type_is_compared_whole_and_without_case) {
  start();
  const auto with = [&](const std::string& type) {
    return ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer ann-token\r\nContent-Type: " + type +
               "\r\nContent-Length: 2\r\n\r\n{}").status;
  };
  EXPECT_EQ(with("Application/JSON; charset=utf-8"), 200);
  EXPECT_EQ(with("application/json;charset=utf-8"), 200);
  EXPECT_EQ(with("application/jsonx"), 415);
  EXPECT_EQ(with("application/json-patch+json"), 415);
}

}  // namespace sluice::transport
